package lab

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCephConfStaysBelowTheLab(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	conf := l.Ceph().conf("the-fsid")
	for line := range strings.Lines(conf) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		if strings.HasPrefix(value, "/") && value != "/dev/null" &&
			!strings.HasPrefix(value, l.runFile()) && !strings.HasPrefix(value, l.stateFile()) {
			t.Errorf("path outside the lab's directories: %s", line)
		}
	}
	for _, want := range []string{
		"fsid = the-fsid\n",
		"mon_host = [v2:10.111.0.1:3300,v1:10.111.0.1:6789]\n",
		"osd_objectstore = memstore\n",
		"keyring = " + l.stateFile("ceph", "ceph.$name.keyring") + "\n",
	} {
		if !strings.Contains(conf, want) {
			t.Errorf("no line %q in\n%s", want, conf)
		}
	}
}

func TestSecondCephSharesNothingWithTheFirst(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	one, two := l.Ceph(), l.SecondCeph()
	if one.ConfFile() == two.ConfFile() || one.daemon("osd.0") == two.daemon("osd.0") || one.runFile() == two.runFile() {
		t.Error("the clusters share files or daemons")
	}
	if diff := cmp.Diff([]string{"10.111.0.1:6790"}, two.Monitors()); diff != "" {
		t.Error(diff)
	}
	if one.opts.PortV2 == two.opts.PortV2 {
		t.Error("the clusters share a port")
	}
}

func TestPoolClientHasTheLeastRights(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	entities := l.Ceph().entities()
	got := keyring(entities[len(entities)-1], "secret")
	want := `[client.kube]
	key = secret
	caps mon = "profile rbd"
	caps osd = "profile rbd pool=kube"
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCephKey(t *testing.T) {
	t.Parallel()
	text, err := newCephKey(time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(key) != 28 || binary.LittleEndian.Uint16(key) != 1 || binary.LittleEndian.Uint32(key[2:]) != 1700000000 ||
		binary.LittleEndian.Uint16(key[10:]) != 16 || bytes.Equal(key[12:], make([]byte, 16)) {
		t.Errorf("key %x", key)
	}
}

func TestCertificatesServeTheAddressesOfTheAPI(t *testing.T) {
	t.Parallel()
	certs := pki(t.TempDir())
	if err := certs.create(); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(certs.cert("ca"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(certs.cert("apiserver"), certs.key("apiserver"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{HostIP, ServiceIP, "kubernetes.default.svc"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsersAndTokens(t *testing.T) {
	t.Parallel()
	l := newTestLab(t)
	cp := l.ControlPlane()
	if err := cp.pki().create(); err != nil {
		t.Fatal(err)
	}
	if err := cp.writeUsers(); err != nil {
		t.Fatal(err)
	}
	tokens, err := os.ReadFile(cp.file("tokens.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`,admin,uid-0,"system:masters"`, `,system:node:node-7,`, `"system:nodes"`} {
		if !strings.Contains(string(tokens), want) {
			t.Errorf("no %s in\n%s", want, tokens)
		}
	}
	if l.Kubeconfig() != cp.kubeconfig(admin) {
		t.Errorf("the administrator's kubeconfig is %s, want %s", cp.kubeconfig(admin), l.Kubeconfig())
	}
	if got := filepath.Base(cp.kubeconfig("system:node:node-1")); got != "node-1.kubeconfig" {
		t.Errorf("a node's kubeconfig is %s", got)
	}
}

func TestVersionFlags(t *testing.T) {
	t.Parallel()
	want := "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=v1.30.14 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=30" +
		" -X k8s.io/client-go/pkg/version.gitVersion=v1.30.14 -X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=30"
	if diff := cmp.Diff(want, versionFlags("v1.30.14")); diff != "" {
		t.Error(diff)
	}
}

func TestEachReleaseOfKubernetesHasAModule(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]string{DefaultKubernetes: "v1.30.14", "1.20": "v1.20.15"} {
		l := newTestLab(t)
		l.opts.Kubernetes = release
		module, err := l.kubernetesModule()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := kubernetesVersion(module); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", release, got, err, want)
		}
	}
	l := newTestLab(t)
	l.opts.Kubernetes = "1.19"
	if _, err := l.kubernetesModule(); err == nil || !strings.Contains(err.Error(), `no module builds Kubernetes "1.19"; there are modules for 1.30, 1.20`) {
		t.Errorf("got %v", err)
	}
}

func TestCNIConfigIsJSON(t *testing.T) {
	t.Parallel()
	if config := cniConfig(3); !json.Valid([]byte(config)) || !strings.Contains(config, "10.244.3.0/24") {
		t.Error(config)
	}
}

func TestNodeReady(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ node, want string }{
		"ready":     {`{"status":{"conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}]}}`, ""},
		"tainted":   {`{"spec":{"taints":[{"key":"k"}]},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, "taint k"},
		"not yet":   {`{"status":{"conditions":[{"type":"Ready","status":"False","message":"no network"}]}}`, "no network"},
		"no status": {`{}`, "not reported"},
		"not JSON":  {`x`, "invalid"},
	} {
		err := nodeReady([]byte(test.node))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
