# perf.sh side case
. /tmp/pgw/env.sh
rm -f /tmp/pgw/loop.out
.venv/bin/python /tmp/pgw/loop.py $1 $2 10 > /tmp/pgw/loop.out &
for i in $(seq 40); do [ -s /tmp/pgw/loop.out ] && break; sleep 0.2; done
sleep 1; pid=$(head -1 /tmp/pgw/loop.out); perf record -g -e cpu-clock -F 1500 -o /tmp/pgw/perf.$1.$2 -p $pid -- sleep 6 >/dev/null; wait; cat /tmp/pgw/loop.out
perf report -i /tmp/pgw/perf.$1.$2 --no-children -g none --sort symbol --stdio 2>/dev/null | grep -v '^#' | grep -v '^$' | head -${3:-40}
