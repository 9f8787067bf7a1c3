"""VibeJudge: the organizer's dashboard for a judged hackathon."""
