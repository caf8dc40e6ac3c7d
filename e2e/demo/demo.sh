#!/bin/bash
# Practice 4 of the notes, without its first two steps: nobody makes an image, nobody
# writes a PersistentVolume. Runs inside a lab (make demo), or on any cluster that has
# the container images, given KUBECONFIG and CEPH_CONF.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
repository=$(realpath "$here/../..")
# The same file that the specs hold to the letter of the notes.
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

# pod_ip prints a pod's address as the pod itself sees it, like the notes do.
pod_ip() { kubectl exec "$1" -- ip -o -4 address show eth0 | awk '{ sub("/.*", "", $4); print $4 }'; }

# read_over_http asks both pods for their page from outside.
read_over_http() {
	local i ip text
	for i in 0 1; do
		ip=$(pod_ip "web-$i")
		printf '%s$ curl http://%s/   # web-%s%s\n' "$bold" "$ip" "$i" "$plain"
		text=$(http_get "$ip")
		printf '%s\n' "$text"
		[ "$text" = "hello web-$i" ] || fail "web-$i should have said: hello web-$i"
	done
}

# http_get is curl, which a bare machine does not have, for a page of one line.
http_get() {
	local line
	exec 3<>"/dev/tcp/$1/80"
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" >&3
	while IFS= read -r line <&3 || [ -n "$line" ]; do printf '%s\n' "$line"; done | tail -n 1
	exec 3>&-
}

chapter 'The provisioner: the image of our Dockerfile, as the Deployment of deploy/'
run kubectl apply -k "$repository/deploy"
run kubectl --namespace kube-system rollout status deployment/rbd-provisioner --timeout 3m
run kubectl get nodes -o wide

chapter 'Once for the cluster: a StorageClass and the Secrets that it names'
key=$(ceph auth get-key client.kube)
monitors=$(ceph mon dump --format json 2>/dev/null |
	grep -o '"type":"v1","addr":"[^"]*"' | sed 's/.*"addr":"//; s/"//' | sort -u | paste -sd,)
# The key goes in through a file descriptor: arguments can be seen by everybody.
for namespace in kube-system default; do
	printf '%s$ ceph auth get-key client.kube | kubectl --namespace %s create secret generic ceph-secret --type kubernetes.io/rbd --from-file key=/dev/stdin%s\n' \
		"$bold" "$namespace" "$plain"
	printf %s "$key" | kubectl --namespace "$namespace" create secret generic ceph-secret --type kubernetes.io/rbd --from-file key=/dev/stdin
done
class=$(cat <<YAML
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: ceph-rbd
  annotations:
    storageclass.kubernetes.io/is-default-class: "true"
provisioner: ceph.com/rbd
parameters:
  monitors: $monitors
  pool: $pool
  adminId: kube
  adminSecretName: ceph-secret
  adminSecretNamespace: kube-system
  userId: kube
  userSecretName: ceph-secret
  fsType: xfs
  trashRetention: 24h
YAML
)
printf "%s\$ kubectl create -f - <<'YAML'%s\n%s\nYAML\n" "$bold" "$plain" "$class"
kubectl create -f - <<<"$class"

chapter 'The StatefulSet of the notes, as it is written there: it names no class, nobody made an image or a volume'
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

chapter 'The pods go, the data stays'
run kubectl delete pod -l app=nginx
run kubectl rollout status statefulset/web --timeout 5m
run kubectl get pods -o wide
read_over_http

if [ -n "${KEEP:-}" ]; then
	chapter 'It stays as it is (KEEP=1)'
	cat <<TEXT
It runs in a network of its own. In there, kubectl and rbd find their cluster:

  _output/bin/lab exec $RBD_LAB -- kubectl get pods,pvc,pv
  _output/bin/lab exec $RBD_LAB -- rbd ls $pool
  _output/bin/lab exec $RBD_LAB -- bash      a shell with KUBECONFIG=$KUBECONFIG
                                         and CEPH_CONF=$CEPH_CONF

  _output/bin/lab down $RBD_LAB                 to end it
TEXT
	exit
fi

chapter 'And away: the StatefulSet scaled down, its claims deleted, the images moved to the trash'
run kubectl scale statefulset/web --replicas 0
run kubectl wait --for delete pod -l app=nginx --timeout 2m
run kubectl delete pvc -l app=nginx
run kubectl wait --for delete pv --all --timeout 3m
run kubectl get pvc,pv
run rbd ls "$pool"
[ -z "$(rbd ls "$pool")" ] || fail "there are images left in pool $pool"

chapter 'For 24 hours they can be restored from the trash (trashRetention)'
run rbd trash ls --long "$pool"
[ "$(rbd trash ls "$pool" | wc -l)" = 2 ] || fail "there should be two images in the trash of pool $pool"
chapter 'Done: not one image was made by hand'
