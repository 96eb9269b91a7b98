#!/bin/sh
# A component without any library of ours: a shell, curl, sed and base64. It greets the other party and writes down what
# it heard. Part 3 section 5 names its variables; a shell drops names with dots, so they come from /proc.
set -eu

value() { # of a variable of this process
    tr '\0' '\n' < "/proc/$$/environ" | sed -n "s/^$1=//p" | head -n 1
}
member() { # of a flat JSON object on stdin
    sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"
}
tell() { # the scheduler: RUNNING, SUCCESS or FAILED
    curl -sS -m 10 -o /dev/null -H "content-type: application/json" -H "x-ptp-token: $token" \
        -d "{\"task_id\": \"$task\", \"status\": \"$1\", \"role\": \"$own\"}" "$callback" || echo "call-back $1 failed"
}
call() { # operation, node of the other side, body
    curl -sS -m 30 -H "content-type: application/json" \
        -H "x-ptp-tech-provider-code: shell" -H "x-ptp-trace-id: $trace" -H "x-ptp-token: $token" \
        -H "x-ptp-session-id: $session" -H "x-ptp-target-node-id: $2" \
        -d "$3" "http://$transport/v1/interconn/chan/$1"
}

task=$(value config.task_id) own=$(value config.self_role) token=$(value config.token)
session=$(value config.session_id) trace=$(value config.trace_id)
transport=$(value system.transport) callback=$(value system.callback) storage=$(value system.storage)
place=$(value runtime.component.output.report0)
if [ "$own" = guest.0 ]; then other=host.0; else other=guest.0; fi
peer=$(value "config.node_id.$other")
tell RUNNING

greeting=$(printf 'hello from %s' "$own" | base64 -w 0)
answer=$(call push "$peer" "{\"topic\": \"$task.$own-$other\", \"payload\": \"$greeting\"}")
echo "push: $(echo "$answer" | member code)"
[ "$(echo "$answer" | member code)" = E0000000000 ] || { tell FAILED; exit 3; }

heard=
for turn in 1 2 3 4 5 6; do
    echo "@progress {\"phase\": \"listen\", \"done\": $turn, \"total\": 6, \"unit\": \"turns\"}"
    answer=$(call pop "$peer" "{\"topic\": \"$task.$other-$own\", \"timeout\": 5000}")
    heard=$(echo "$answer" | member payload | base64 -d)
    [ -n "$heard" ] && break
done
[ -n "$heard" ] || { tell FAILED; exit 4; }

folder="${storage#file://}/$(echo "$place" | member namespace)/$(echo "$place" | member name)"
mkdir -p "$folder"
printf '{"heard": "%s"}\n' "$heard" > "$folder/.data_0.tmp"
mv "$folder/.data_0.tmp" "$folder/data_0"
printf '{"partitions": 1, "count": 1, "column_info": [], "file_type": "json"}\n' > "$folder/.metadata.tmp"
mv "$folder/.metadata.tmp" "$folder/metadata"
tell SUCCESS
echo '@result {"code": "0", "message": "ok"}'
