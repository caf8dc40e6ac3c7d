package lab

import "fmt"

// kubeletConfig is for a kubelet in a User-Mode Linux, which has neither systemd
// nor the cgroup features that limits per quality of service need.
func kubeletConfig(ca string) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %s}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
evictionHard:
  memory.available: 0%%
  nodefs.available: 0%%
  nodefs.inodesFree: 0%%
  imagefs.available: 0%%
imageGCHighThresholdPercent: 100
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: /etc/resolv.conf
# Nobody serves names there. Without an address every pod comes with a warning.
clusterDNS: [%s]
clusterDomain: cluster.local
# Ten seconds by default, for which each attached volume waits to be reported.
nodeStatusUpdateFrequency: 2s
nodeStatusReportFrequency: 5m
# A minute by default, for which a grown volume waits for its file system.
syncFrequency: 10s
`, ca, HostIP)
}

// containerdConfig knows no registry: images are there or they are not.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
`

// cniConfig gives the pods of a node addresses that the host's side routes to it.
func cniConfig(node int) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "lab",
  "plugins": [
    {
      "type": "ptp",
      "mtu": 1500,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni"
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, PodCIDR(node))
}
