package lab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// user is a Kubernetes user that authenticates with a token.
type user struct {
	name   string
	groups string
}

const (
	admin             = "admin"
	controllerManager = "system:kube-controller-manager"
	scheduler         = "system:kube-scheduler"
)

func users() []user {
	all := []user{{admin, "system:masters"}, {controllerManager, ""}, {scheduler, ""}}
	for i := range maxNodes {
		all = append(all, user{"system:node:" + nodeName(i), "system:nodes"})
	}
	return all
}

// writeUsers writes a token and a kubeconfig for each user, and the token file of the API
// server.
func (cp *ControlPlane) writeUsers() error {
	ca, err := os.ReadFile(cp.pki().cert("ca"))
	if err != nil {
		return err
	}
	var tokens strings.Builder
	for i, user := range users() {
		token, err := newToken()
		if err != nil {
			return err
		}
		fmt.Fprintf(&tokens, "%s,%s,uid-%d,%q\n", token, user.name, i, user.groups)
		if err := writeFile(cp.kubeconfig(user.name), []byte(kubeconfig(user.name, token, ca)), 0o600); err != nil {
			return err
		}
		if err := writeFile(cp.tokenFile(user.name), []byte(token), 0o600); err != nil {
			return err
		}
	}
	return writeFile(cp.file("tokens.csv"), []byte(tokens.String()), 0o600)
}

// kubeconfig renders a user's kubeconfig. The CA is embedded, so that the file also works
// inside a node.
func kubeconfig(user, token string, ca []byte) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: https://%s
    certificate-authority-data: %s
users:
- name: %s
  user:
    token: %s
contexts:
- name: lab
  context:
    cluster: lab
    user: %s
current-context: lab
`, HostIP, base64Text(ca), user, token, user)
}

func newToken() (string, error) {
	var token [16]byte
	_, err := rand.Read(token[:])
	return hex.EncodeToString(token[:]), err
}
