// Keeps the cards true while the page is open: asks for the state of all apps, and says so when it cannot.
(() => {
  "use strict";

  const EVERY = 5000;
  const LIMIT = 12000;
  const SLOWEST = 60000;
  const summary = document.getElementById("summary");
  const summaryText = document.getElementById("summary-text");
  const trouble = document.getElementById("trouble");
  const checked = document.getElementById("checked");
  const numbers = new Intl.NumberFormat(document.documentElement.lang);
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  let failures = 0;
  let timer = 0;
  let seen = Number(checked.dataset.at) * 1000;

  // touching nothing that is already right keeps screen readers quiet
  const put = (element, text) => {
    if (element && element.textContent !== text) element.textContent = text;
  };
  const known = () => Array.from(document.querySelectorAll(".card"), (card) => card.dataset.app).join();
  const count = (value) => (value === null ? "–" : numbers.format(value));

  const update = (card, view) => {
    card.dataset.state = view.state;
    const field = (name) => card.querySelector(`[data-field="${name}"]`);
    put(field("label"), view.label);
    put(field("requests"), count(view.requests));
    put(field("sessions"), count(view.sessions));
    put(field("release"), view.release || "–");
    field("release").title = `Release ${view.release}`;
    put(field("reason"), view.reason);
    field("reason").hidden = !view.reason;
    for (const service of view.services) {
      const item = card.querySelector(`.service[data-kind="${service.kind}"]`);
      if (!item) continue;
      item.dataset.state = service.state;
      put(item.querySelector('[data-field="service"]'), service.label);
    }
  };

  const show = (told) => {
    if (told.apps.map((view) => view.name).join() !== known()) {
      location.reload(); // an app came or went: the server draws the page
      return;
    }
    for (const view of told.apps) update(document.querySelector(`.card[data-app="${view.name}"]`), view);
    summary.dataset.state = told.state;
    put(summaryText, told.summary);
    seen = told.at * 1000;
    put(checked, `Checked at ${clock.format(seen)}`);
  };

  const lost = () => {
    document.body.classList.add("stale");
    trouble.hidden = false;
    put(trouble, `This host does not answer, so the page shows how it was at ${clock.format(seen)}. Trying again…`);
  };
  const found = () => {
    document.body.classList.remove("stale");
    trouble.hidden = true;
    put(trouble, "");
  };

  const ask = async () => {
    clearTimeout(timer);
    try {
      const answer = await fetch("/api/apps", { cache: "no-store", signal: AbortSignal.timeout(LIMIT) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(await answer.json());
      failures = 0;
      found();
    } catch {
      failures += 1;
      if (failures > 1) lost(); // one lost answer is no news: a release may just have moved the portal
    }
    if (!document.hidden) timer = setTimeout(ask, Math.min(SLOWEST, EVERY * 2 ** Math.max(0, failures - 2)));
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else ask();
  });
  put(checked, `Checked at ${clock.format(seen)}`);
  // cards that are still being checked ask again at once
  timer = setTimeout(ask, document.querySelector('[data-state="checking"]') ? 300 : EVERY);
})();
