#!/bin/bash
# Installs the provisioner with the commands of README.md, then runs practice 4 of the notes
# without its first two steps: no image is created by hand, and no PersistentVolume is
# written. Runs inside a lab (make demo), or on any cluster that has the container images,
# given KUBECONFIG and CEPH_CONF.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
repository=$(realpath "$here/../..")
# The specs compare this file with the notes.
statefulset=$repository/e2e/specs/testdata/statefulset.yaml
pool=kube
bold=$(printf '\033[1m') plain=$(printf '\033[0m')
[ -t 1 ] || bold='' plain=''

chapter() { printf '\n%s== %s ==%s\n' "$bold" "$*" "$plain"; }
run() {
	printf '%s$ %s%s\n' "$bold" "$*" "$plain"
	"$@"
}
fail() {
	printf '\nThe demo stopped: %s\n' "$*" >&2
	kubectl get pods,pvc,pv --all-namespaces >&2 || true
	kubectl get events --all-namespaces --sort-by .lastTimestamp 2>/dev/null | tail -n 20 >&2 || true
	kubectl --namespace kube-system logs deployment/rbd-provisioner --tail 30 >&2 || true
	exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# pod_ip prints the address of a pod as seen in the pod, as in the notes.
pod_ip() { kubectl exec "$1" -- ip -o -4 address show eth0 | awk '{ sub("/.*", "", $4); print $4 }'; }

# read_over_http gets the page of both pods from outside.
read_over_http() {
	local i ip text
	for i in 0 1; do
		ip=$(pod_ip "web-$i")
		printf '%s$ curl http://%s/   # web-%s%s\n' "$bold" "$ip" "$i" "$plain"
		text=$(http_get "$ip")
		printf '%s\n' "$text"
		[ "$text" = "hello web-$i" ] || fail "web-$i should have returned: hello web-$i"
	done
}

# http_get is a replacement for curl, which a bare machine does not have, for a page of one line.
http_get() {
	local line
	exec 3<>"/dev/tcp/$1/80"
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" >&3
	while IFS= read -r line <&3 || [ -n "$line" ]; do printf '%s\n' "$line"; done | tail -n 1
	exec 3>&-
}

# readme_commands prints the commands of the section Install of README.md, without comments.
readme_commands() {
	# shellcheck disable=SC2016 # the backticks are Markdown
	awk '/^## / {section = $0} /^```/ {fenced = !fenced; next}
		section == "## Install" && fenced {sub(/ +#.*/, ""); print}' "$repository/README.md"
}

# edit_example does what README.md says of deploy/example: it sets the monitors and both keys.
# The class also becomes the default class, because the StatefulSet names none, and has xfs
# as in the notes.
edit_example() {
	local monitors user secrets
	monitors=$(ceph mon dump --format json 2>/dev/null |
		grep -o '"type":"v1","addr":"[^"]*"' | sed 's/.*"addr":"//; s/"//' | sort -u | paste -sd,)
	sed -i "s|^  monitors:.*|  monitors: $monitors|; s|^  fsType:.*|  fsType: xfs|
		s|^  # annotations:|  annotations:|; s|^  #   storageclass|    storageclass|" deploy/example/storageclass.yaml
	# By the shell itself: other users can see the arguments of a command.
	secrets=$(<deploy/example/secrets.yaml)
	for user in kube-admin kube; do
		secrets=${secrets/"REPLACE-WITH-THE-KEY-OF-client.$user"/"$(ceph auth get-key "client.$user")"}
	done
	printf '%s\n' "$secrets" >deploy/example/secrets.yaml
	run cat deploy/example/storageclass.yaml
}

chapter 'The provisioner, installed with the commands of README.md'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$repository/deploy" "$work"
cd "$work"
readme_commands >commands
[ -s commands ] || fail 'found no commands in README.md'
while read -r command <&3; do
	case $command in
	'make image'*) continue ;; # the nodes of a lab have the image already, and there is no registry
	'kubectl apply -k deploy/example'*) edit_example ;;
	esac
	printf '%s$ %s%s\n' "$bold" "$command" "$plain"
	bash -euo pipefail -c "$command" >output
	sed 's/key = .*/key = …/' output
done 3<commands
cd "$repository"
run kubectl --namespace kube-system rollout status deployment/rbd-provisioner --timeout 3m
run kubectl get nodes -o wide

chapter 'The StatefulSet of the notes, unchanged: it names no class, and no image or volume exists'
run cat "$statefulset"
run kubectl create -f "$statefulset"
run kubectl rollout status statefulset/web --timeout 5m
run kubectl get pvc,pv
run kubectl get pods -o wide
run rbd ls "$pool"
run rbd info "$pool/$(kubectl get pv -o jsonpath='{.items[0].spec.rbd.image}')"
run kubectl exec web-0 -- df -hT /usr/share/nginx/html

chapter 'Written, and read over HTTP by the address of the pod'
for i in 0 1; do
	# shellcheck disable=SC2016 # the pod's host name, not ours
	run kubectl exec "web-$i" -- sh -c 'echo hello $(hostname) > /usr/share/nginx/html/index.html'
done
read_over_http

chapter 'The pods are deleted, the data remains'
run kubectl delete pod -l app=nginx
run kubectl rollout status statefulset/web --timeout 5m
run kubectl get pods -o wide
read_over_http

if [ -n "${KEEP:-}" ]; then
	chapter 'The lab keeps running (KEEP=1)'
	cat <<TEXT
It runs in a network namespace of its own. There, kubectl and rbd find their cluster:

  _output/bin/lab exec $RBD_LAB -- kubectl get pods,pvc,pv
  _output/bin/lab exec $RBD_LAB -- rbd ls $pool
  _output/bin/lab exec $RBD_LAB -- bash      a shell with KUBECONFIG=$KUBECONFIG
                                         and CEPH_CONF=$CEPH_CONF

  _output/bin/lab down $RBD_LAB                 stop it
TEXT
	exit
fi

chapter 'Deletion: the StatefulSet is scaled down, its claims are deleted, the images are moved to the trash'
run kubectl scale statefulset/web --replicas 0
run kubectl wait --for delete pod -l app=nginx --timeout 2m
run kubectl delete pvc -l app=nginx
run kubectl wait --for delete pv --all --timeout 3m
run kubectl get pvc,pv
run rbd ls "$pool"
[ -z "$(rbd ls "$pool")" ] || fail "images are left in pool $pool"

chapter 'For 24 hours they can be restored from the trash (trashRetention)'
run rbd trash ls --long "$pool"
[ "$(rbd trash ls "$pool" | wc -l)" = 2 ] || fail "expected two images in the trash of pool $pool"
chapter 'Done: no image was created by hand'
