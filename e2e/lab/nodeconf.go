package lab

import "fmt"

// kubeletConfig renders the configuration of a kubelet in a User-Mode Linux. It has neither
// systemd nor the cgroup features that limits per quality of service need.
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
# There is no DNS server. Without an address every pod gets a warning event.
clusterDNS: [%s]
clusterDomain: cluster.local
# The default of ten seconds would delay the report of each attached volume.
nodeStatusUpdateFrequency: 2s
nodeStatusReportFrequency: 5m
# The default of a minute would delay the file system's expansion.
syncFrequency: 10s
`, ca, HostIP)
}

// containerdConfig configures no registry: all images must be imported.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
`

// cniConfig renders a CNI configuration with pod addresses that the host routes to the node.
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
