package provisioner

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
)

// put creates secret vault/key with the entries, unless they are nil.
func (w *world) put(t *testing.T, data map[string]string) {
	t.Helper()
	if data == nil {
		return
	}
	_, err := w.Client.CoreV1().Secrets("vault").Create(t.Context(), fixture.Secret("vault", "key", data), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// failSecrets makes each GET of a secret fail.
func (w *world) failSecrets(err error) { w.failSecret("", err) }

// failSecret makes each GET of the secret of that name fail.
func (w *world) failSecret(name string, err error) {
	w.Client.PrependReactor("get", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		fails := name == "" || action.(clienttesting.GetAction).GetName() == name
		return fails, &corev1.Secret{}, err
	})
}

// encode encodes a text as the data of a Secret.
func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

var (
	errForbidden = apierrors.NewForbidden(corev1.Resource("secrets"), "key", errors.New("no rule"))
	errServer    = apierrors.NewInternalError(errors.New("etcd is full"))
)

func TestAdminSecrets(t *testing.T) {
	t.Parallel()
	type data = map[string]string
	const (
		put      = ": put the output of `ceph auth get-key` there, with `printf` rather than `echo`"
		noKey    = "admin secret vault/key: not a cephx key: "
		short    = noKey + "it has a wrong length" + put
		blank    = noKey + "it contains white space or a line break" + put
		noBase64 = noKey + "it is not base64" + put
		keyring  = noKey + "it is a keyring file" + put
		unknown  = noKey + "it has an unknown type" + put
	)
	many := data{}
	for i := range 100 {
		many[fmt.Sprintf("key-%02d", i)] = fixture.AdminKey
	}
	for name, test := range map[string]struct {
		data data
		fail error
		err  string
	}{
		"under key":                       {data: data{"key": fixture.AdminKey}},
		"under key, beside others":        {data: data{"adminID": "admin", "key": fixture.AdminKey, "other": "x"}},
		"under another name, as the only": {data: data{"secret": fixture.AdminKey}},

		"no entry":                          {data: data{}, err: "admin secret vault/key: it is empty: put the output of `ceph auth get-key` under \"key\""},
		"several, none of them called key":  {data: data{"userKey": fixture.AdminKey, "adminKey": fixture.UserKey}, err: `admin secret vault/key: none of its entries (adminKey, userKey) is called "key"` + ": put the output of `ceph auth get-key` there"},
		"key in upper case, beside another": {data: data{"KEY": fixture.AdminKey, "id": "admin"}, err: `admin secret vault/key: none of its entries (KEY, id) is called "key"` + ": put the output of `ceph auth get-key` there"},
		"very many, none of them called key": {data: many, err: "admin secret vault/key: none of its entries (key-00, key-01, key-02, key-03, key-04, key-05, key-06, key-07, " +
			`key-08, key-09, key-10, key-11, key-…) is called "key": put the output of ` + "`ceph auth get-key` there"},
		"an empty entry":                 {data: data{"key": ""}, err: noKey + "it is empty" + put},
		"an empty one beside a good one": {data: data{"key": "", "other": fixture.AdminKey}, err: noKey + "it is empty" + put},
		"ended by a newline":             {data: data{"key": fixture.AdminKey + "\n"}, err: blank},
		"ended by two newlines":          {data: data{"key": fixture.AdminKey + "\n\n"}, err: blank},
		"ended as on Windows":            {data: data{"key": fixture.AdminKey + "\r\n"}, err: blank},
		"in blanks":                      {data: data{"key": " " + fixture.AdminKey}, err: blank},
		"with a blank in it":             {data: data{"key": fixture.AdminKey[:20] + " " + fixture.AdminKey[20:]}, err: blank},
		"wrapped":                        {data: data{"key": fixture.AdminKey[:20] + "\n" + fixture.AdminKey[20:]}, err: blank},
		"a newline alone":                {data: data{"key": "\n"}, err: blank},
		"ended by NUL":                   {data: data{"key": fixture.AdminKey + "\x00"}, err: noBase64},
		"begun by a byte order mark":     {data: data{"key": "\ufeff" + fixture.AdminKey}, err: noBase64},
		"in quotes":                      {data: data{"key": `"` + fixture.AdminKey + `"`}, err: noBase64},
		"binary":                         {data: data{"key": "\x01\x00\xff\xfe"}, err: noBase64},
		"binary, as long as a key is":    {data: data{"key": "\x01\x00AAAAAAAA\x10\x000123456789abcdef"}, err: noBase64},
		"without its end":                {data: data{"key": fixture.AdminKey[:20]}, err: short},
		"without its padding":            {data: data{"key": strings.TrimRight(fixture.AdminKey, "=")}, err: noBase64},
		"twice":                          {data: data{"key": fixture.UserKey[:36] + fixture.AdminKey}, err: short},
		"base64 of something else":       {data: data{"key": "cGFzc3dvcmQ="}, err: short},
		"encoded twice":                  {data: data{"key": encode(fixture.AdminKey)}, err: noKey + "it is base64-encoded twice" + put},
		"encoded thrice":                 {data: data{"key": encode(encode(fixture.AdminKey))}, err: short},
		"encoded twice, with a newline":  {data: data{"key": encode(fixture.AdminKey + "\n")}, err: short},
		"a keyring, as the only":         {data: data{"keyring": "[client.admin]\n\tkey = " + fixture.AdminKey + "\n"}, err: keyring},
		"a keyring, under key":           {data: data{"key": "\n[client.admin]\n\tkey = " + fixture.AdminKey + "\n"}, err: keyring},
		"a line of a keyring":            {data: data{"key": "key = " + fixture.AdminKey}, err: blank},
		"of no type":                     {data: data{"key": encode("\x00\x00timetime\x10\x000123456789abcdef")}, err: unknown},
		"of a type that is none":         {data: data{"key": encode("\x09\x00timetime\x10\x000123456789abcdef")}, err: unknown},
		"of too few bytes for its type":  {data: data{"key": encode("\x01\x00timetime\x0f\x000123456789abcde")}, err: short},
		"of 1 MB":                        {data: data{"key": strings.Repeat("QUFB", 250_000)}, err: short},
		"missing":                        {err: "admin secret vault/key does not exist: create it with the output of `ceph auth get-key` under \"key\""},
		"forbidden":                      {fail: errForbidden, err: "admin secret vault/key cannot be read: allow the service account of this provisioner to get secrets in namespace vault"},
		"a failing server":               {fail: errServer, err: "read admin secret vault/key: Internal error occurred: etcd is full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newInputWorld(t)
			w.put(t, test.data)
			class := leastClass(map[string]string{"adminSecretNamespace": "vault", "adminSecretName": "key"})
			if test.fail != nil {
				w.failSecrets(test.fail)
			}
			if test.err != "" {
				w.wantRejected(t, class, fixture.Claim(), test.err)
				return
			}
			w.wantProvisioned(t, class, fixture.Claim(), adminSecretIs("vault", "key"))
		})
	}
}

// The volume is created with any user secret.
func TestUserSecrets(t *testing.T) {
	t.Parallel()
	type data = map[string]string
	const (
		warning = "Warning InvalidUserSecret user secret vault/key"
		none    = ": nodes cannot map the volume with it"
		noKey   = warning + ": not a cephx key: "
	)
	for name, test := range map[string]struct {
		data data
		fail bool
		want string
	}{
		"under key":                     {data: data{"key": fixture.UserKey}},
		"under any name, as the only":   {data: data{"secret": fixture.UserKey}},
		"several":                       {data: data{"key": fixture.UserKey, "adminId": "x"}, want: warning + ` has several entries (adminId, key): the kubelet may use any of them as the key: remove all but "key"`},
		"no entry":                      {data: data{}, want: warning + " is empty" + none},
		"an empty entry":                {data: data{"key": ""}, want: noKey + "it is empty" + none},
		"ended by a newline":            {data: data{"key": fixture.UserKey + "\n"}, want: noKey + "it contains white space or a line break" + none},
		"binary":                        {data: data{"key": "\x01\x00\xff\xfe"}, want: noKey + "it is not base64" + none},
		"encoded twice":                 {data: data{"key": encode(fixture.UserKey)}, want: noKey + "it is base64-encoded twice" + none},
		"a keyring":                     {data: data{"key": "[client.node]\nkey = " + fixture.UserKey}, want: noKey + "it is a keyring file" + none},
		"missing":                       {want: warning + " does not exist: create it, nodes cannot map the volume without it"},
		"a failing server is no matter": {data: data{}, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newInputWorld(t)
			w.put(t, test.data)
			if test.fail {
				w.failSecret("key", errServer)
			}
			class := leastClass(map[string]string{"userSecretNamespace": "vault", "userSecretName": "key"})
			w.wantProvisioned(t, class, fixture.Claim(), userSecretIs(&corev1.SecretReference{Namespace: "vault", Name: "key"}), func(m *outcome) {
				if test.want != "" {
					m.Events = []string{test.want}
				}
			})
		})
	}
}

func TestEventReportsAnInvalidUserSecret(t *testing.T) {
	t.Parallel()
	const missing = "Warning InvalidUserSecret user secret %s does not exist: create it, nodes cannot map the volume without it"
	for name, test := range map[string]struct {
		class map[string]string
		want  []string
	}{
		"a valid one sends no event":         {},
		"in the claim's namespace":           {map[string]string{"userSecretName": "lost"}, []string{strings.Replace(missing, "%s", "shop/lost", 1)}},
		"in a namespace of its own":          {map[string]string{"userSecretNamespace": "ceph"}, []string{strings.Replace(missing, "%s", "ceph/user", 1)}},
		"a keyring on the nodes has none":    {map[string]string{"userSecretName": "", "keyring": "/etc/ceph/keyring"}, nil},
		"a secret beside a keyring has some": {map[string]string{"userSecretName": "lost", "keyring": "/etc/ceph/keyring"}, []string{strings.Replace(missing, "%s", "shop/lost", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.provision(t, fixture.Options(fixture.Class(test.class), fixture.Claim()))
			if got := w.Sent(); strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("events %q, want %q", got, test.want)
			}
		})
	}
}

func TestSecretsAreReadByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim()))
	for _, action := range w.Client.Actions() {
		get, ok := action.(clienttesting.GetAction)
		if !ok || !action.Matches("get", "secrets") {
			t.Errorf("the RBAC rules do not allow: %s %s", action.GetVerb(), action.GetResource().Resource)
			continue
		}
		if name := get.GetNamespace() + "/" + get.GetName(); name != "ceph/admin" && name != "shop/user" {
			t.Errorf("read secret %s, which no object names", name)
		}
	}
	if got := len(w.Client.Actions()); got != 2 {
		t.Errorf("%d requests to the API server, want 2", got)
	}
}
