#!/bin/bash
# Checks the model with spin: each configuration must hold in all its states, each scenario
# must be reachable, and each mutation must violate the property that it is expected to
# violate. Prints one line for each run. Usage: docs/model/check.sh [NAME…]
set -euo pipefail

model=$(dirname "$(realpath "$0")")
for tool in spin gcc; do
	command -v "$tool" >/dev/null || {
		echo "$0: $tool is not installed: apt-get install $tool" >&2
		exit 1
	}
done

work=$(mktemp -d)
trap 'jobs -p | xargs -r kill; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP

# The numbers are those in protocol.pml.
declare -A property=([DATA]=1 [NAME]=2 [WRITER]=3 [LEAK]=4)

# run NAME EXPECTED DEFINITIONS...: EXPECTED is `holds`, `reached`, or the property that is violated.
run() {
	local name=$1 expected=$2 dir=$work/$1 start wanted verdict=ok compile search
	shift 2
	start=$(date +%s%N)
	case $expected in
	holds)
		# All states in all orders, including deadlocks. -O2 would cost more time than it saves.
		compile=(-O1 -DNOREDUCE) search=() wanted='errors: 0'
		;;
	reached)
		# Breadth first finds the shortest trace. It needs no fast code.
		compile=(-O0 -DBFS) search=(-E) wanted='assertion violated  !('
		set -- "$@" ONLY=SCENARIO
		;;
	*)
		compile=(-O0 -DBFS) search=(-E) wanted="assertion violated ((${property[$expected]}!=${property[$expected]})||"
		set -- "$@" "ONLY=$expected"
		;;
	esac
	mkdir "$dir"
	cp "$model"/*.pml "$dir"
	cd "$dir"
	{
		spin -a "${@/#/-D}" protocol.pml &&
			gcc "${compile[@]}" -w -DSAFETY -DMEMLIM=2048 -o pan pan.c &&
			./pan "${search[@]}" -m10000 -w22
	} >log 2>&1 || true # the log decides
	grep -qF "$wanted" log || verdict=FAILED
	# A search that was truncated proves nothing.
	if [ "$expected" = holds ] && grep -qE 'not completed|too small|reached -DMEMLIM|out of memory' log; then
		verdict=FAILED
	fi
	printf '%-26s %-18s %9s states %6.1f s  %s\n' "$name" "$expected" \
		"$(awk '/states, stored/ {print $1}' log)" "$(($(date +%s%N) - start))e-9" "$verdict"
	[ "$verdict" = ok ] && return
	echo "spin -a ${*/#/-D} protocol.pml:"
	tail -n 40 log
	if [ -e protocol.pml.trail ]; then
		spin -t -p "${@/#/-D}" protocol.pml 2>&1 | tail -n 150
	fi
	return 1
}

# One line for each run. README.md says what each shows.
runs='
plain                    holds    PLAIN
clones                   holds    CLONES
deletion                 holds    DELETION
shared                   holds    SHARED
clones-3-leaders         holds    CLONES LEADERS=3 TIMEOUTS=0 ERRORS=0

plain-life               reached  PLAIN
clones-made-again        reached  CLONES
deletion-restored        reached  DELETION
shared-restored          reached  SHARED

clones-no-fence          DATA     CLONES NO_FENCE ERRORS=0
plain-no-fence           WRITER   PLAIN NO_FENCE
clones-no-record         DATA     CLONES NO_RECORD ERRORS=0
clones-early-release     DATA     CLONES EARLY_RELEASE ERRORS=0
clones-forget            DATA     CLONES FORGET LEADERS=3 TIMEOUTS=0 ERRORS=0
deletion-cache-delete    NAME     DELETION CACHE_DELETE
deletion-no-purge-check  DATA     DELETION NO_PURGE_CHECK
deletion-no-index        DATA     DELETION NO_INDEX
deletion-blind-remove    DATA     DELETION BLIND_REMOVE
shared-gc-by-name        DATA     SHARED GC_BY_NAME
shared-purge-by-mark     DATA     SHARED PURGE_BY_MARK
'

# As many at a time as there are processors.
failed=0 running=0 limit=$(nproc)
while read -r name expected definitions; do
	[ -n "$name" ] || continue
	[ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
	if [ "$running" -ge "$limit" ]; then
		wait -n || failed=1
		running=$((running - 1))
	fi
	# shellcheck disable=SC2086 # definitions are words
	run "$name" "$expected" $definitions &
	running=$((running + 1))
done <<<"$runs"
while [ "$running" -gt 0 ]; do
	wait -n || failed=1
	running=$((running - 1))
done
exit "$failed"
