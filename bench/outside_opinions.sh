#!/usr/bin/env bash
# Asks Prowler about a rehearsed account and checkov about the playbooks, and prints what they say.
#
#   bench/outside_opinions.sh           both; ten minutes, most of them Prowler's
#   bench/outside_opinions.sh checkov   only one of them
#
# Fails on a finding that bench/explained.yml does not explain. Both have versions of boto3 of their own, so each runs in an environment
# of its own that uv makes and keeps in its cache. The account is rehearsed without containers, with everything switched on.
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly PROWLER=prowler==5.46.0 CHECKOV=checkov==3.3.30 PYTHON=3.12 PORT=${PERGOLA_OPINIONS_PORT:-8471}
readonly SERVICES=(acm autoscaling cloudtrail cloudwatch ec2 elbv2 iam rds s3 secretsmanager sns vpc wafv2)
readonly OUT=$PWD/build/opinions
uv=build/tools/uv/bin/uv
[[ -x $uv ]] || uv=uv

tool() {
  "$uv" tool run --quiet --python "$PYTHON" --from "$1" "${@:2}"
}

ask_checkov() {
  tool "$CHECKOV" checkov -d . --framework ansible --skip-path .venv --skip-path build --skip-download --quiet -o json \
    >"$OUT/checkov.json" 2>"$OUT/checkov.log" || [[ -s $OUT/checkov.json ]] # its exit status says that it found something
}

ask_prowler() {
  local rehearsal=(.venv/bin/python -m rehearsal --state "$OUT/rehearsal")
  "${rehearsal[@]}" up --no-bodies --name opinions --port "$PORT"
  trap '.venv/bin/python -m rehearsal --state "$OUT/rehearsal" down' EXIT
  export AWS_ENDPOINT_URL=http://127.0.0.1:$PORT AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
  .venv/bin/ansible-playbook playbooks/cloud.yml -i inventories/rehearsal -e @bench/opinions_inventory.yml
  AWS_ACCESS_KEY_ID=rehearsal AWS_SECRET_ACCESS_KEY=any-but-a-word-that-occurs \
    tool "$PROWLER" prowler aws --region us-east-1 --services "${SERVICES[@]}" --no-banner --no-color --only-logs \
    --output-formats csv --output-directory "$OUT" --output-filename prowler \
    >"$OUT/prowler.log" 2>&1 || [[ -s $OUT/prowler.csv ]]
}

main() {
  local part parts=("$@")
  (($#)) || parts=(checkov prowler)
  mkdir -p "$OUT"
  rm -f "$OUT"/checkov.json "$OUT"/prowler.csv
  for part in "${parts[@]}"; do
    case $part in
      checkov) ask_checkov ;;
      prowler) ask_prowler ;;
      *)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
        return 2
        ;;
    esac
  done
  .venv/bin/python bench/opinions.py "$OUT"
}

main "$@"
