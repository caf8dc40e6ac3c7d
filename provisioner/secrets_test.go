package provisioner

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

var secretName = types.NamespacedName{Namespace: "vault", Name: "key"}

// worldWithSecret has vault/key with the entries given, or without any if nil is given.
func worldWithSecret(t *testing.T, data map[string]string) *world {
	t.Helper()
	if data == nil {
		return newWorld(t)
	}
	return newWorld(t, secretOf(secretName.Namespace, secretName.Name, data))
}

// failSecrets makes every look at a secret fail.
func (w *world) failSecrets(err error) {
	w.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.Secret{}, err
	})
}

var (
	errForbidden = apierrors.NewForbidden(corev1.Resource("secrets"), "key", errors.New("no rule"))
	errServer    = apierrors.NewInternalError(errors.New("etcd is full"))
)

func TestAdminKey(t *testing.T) {
	t.Parallel()
	type data = map[string]string
	const put = ": put the output of `ceph auth get-key` there, with `printf` rather than `echo`"
	for name, test := range map[string]struct {
		data data
		fail error
		err  string
	}{
		"under key":                        {data: data{"key": adminKeyText}},
		"under key, beside others":         {data: data{"adminID": "admin", "key": adminKeyText, "other": "x"}},
		"under another name, as the only":  {data: data{"secret": adminKeyText}},
		"no entry":                         {data: data{}, err: "admin secret vault/key: it is empty: put the output of `ceph auth get-key` under \"key\""},
		"several, none of them called key": {data: data{"userKey": adminKeyText, "adminKey": userKeyText}, err: `admin secret vault/key: none of its entries (adminKey, userKey) is called "key"`},
		"an empty entry":                   {data: data{"key": ""}, err: "admin secret vault/key: not a cephx key: it is cut short or has something added" + put},
		"ended by a newline":               {data: data{"key": adminKeyText + "\n"}, err: "admin secret vault/key: not a cephx key: there is white space or a line break in it or around it" + put},
		"in blanks":                        {data: data{"key": " " + adminKeyText}, err: "admin secret vault/key: not a cephx key: there is white space or a line break in it or around it" + put},
		"binary":                           {data: data{"key": "\x01\x00\xff\xfe"}, err: "admin secret vault/key: not a cephx key: it is not base64" + put},
		"encoded twice":                    {data: data{"key": "QVFBWjNXcG5BQUFBQUJBQXl5QnFTOSsyckM0SmRHdERWSWxwVVE9PQ=="}, err: "admin secret vault/key: not a cephx key: it is cut short or has something added" + put},
		"a keyring, as the only":           {data: data{"keyring": "[client.admin]\n\tkey = " + adminKeyText + "\n"}, err: "admin secret vault/key: not a cephx key: there is white space or a line break in it or around it" + put},
		"missing":                          {err: "admin secret vault/key does not exist: create it with the output of `ceph auth get-key` under \"key\""},
		"forbidden":                        {fail: errForbidden, err: "admin secret vault/key may not be read by this provisioner: allow its service account to get secrets in namespace vault"},
		"a failing server":                 {fail: errServer, err: "read admin secret vault/key: Internal error occurred: etcd is full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldWithSecret(t, test.data)
			if test.fail != nil {
				w.failSecrets(test.fail)
			}
			key, err := w.adminKey(t.Context(), secretName)
			if textOf(err) != test.err {
				t.Errorf("error %v\nwant  %s", err, test.err)
			}
			wantNoKey(t, textOf(err))
			switch {
			case err == nil && key.Reveal() != adminKeyText:
				t.Error("this is another key")
			case err != nil && key != (rbdutil.Key{}):
				t.Error("a key beside the error")
			case err != nil && !errors.As(err, new(refusal)):
				t.Error("Ceph was not asked, but the error does not say so")
			}
		})
	}
}

func TestUserSecretDoubt(t *testing.T) {
	t.Parallel()
	type data = map[string]string
	const none = ": no node can map the volume with it"
	for name, test := range map[string]struct {
		data data
		fail error
		want string
	}{
		"under key":                             {data: data{"key": userKeyText}},
		"under any name, as the only":           {data: data{"secret": userKeyText}},
		"several":                               {data: data{"key": userKeyText, "adminId": "x"}, want: `user secret vault/key has several entries (adminId, key): the kubelet takes any one of them for the key, so leave only "key"`},
		"no entry":                              {data: data{}, want: "user secret vault/key is empty" + none},
		"an empty entry":                        {data: data{"key": ""}, want: "user secret vault/key: not a cephx key: it is cut short or has something added" + none},
		"ended by a newline":                    {data: data{"key": userKeyText + "\n"}, want: "user secret vault/key: not a cephx key: there is white space or a line break in it or around it" + none},
		"binary":                                {data: data{"key": "\x01\x00\xff\xfe"}, want: "user secret vault/key: not a cephx key: it is not base64" + none},
		"missing":                               {want: "user secret vault/key does not exist: until it does, no node can map the volume"},
		"one that we may not see is no finding": {data: data{}, fail: errForbidden},
		"a failing server is no finding":        {data: data{}, fail: errServer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldWithSecret(t, test.data)
			if test.fail != nil {
				w.failSecrets(test.fail)
			}
			got := w.userSecretDoubt(t.Context(), secretName)
			if got != test.want {
				t.Errorf("doubt %q\nwant  %q", got, test.want)
			}
			wantNoKey(t, got)
		})
	}
}

func TestClaimsAreToldOfADoubtfulUserSecret(t *testing.T) {
	t.Parallel()
	const missing = "Warning UserSecretDoubtful user secret %s does not exist: until it does, no node can map the volume"
	for name, test := range map[string]struct {
		class map[string]string
		want  []string
	}{
		"a good one says nothing":            {},
		"in the claim's namespace":           {map[string]string{"userSecretName": "lost"}, []string{strings.Replace(missing, "%s", "shop/lost", 1)}},
		"in a namespace of its own":          {map[string]string{"userSecretNamespace": "ceph"}, []string{strings.Replace(missing, "%s", "ceph/user", 1)}},
		"a keyring on the nodes has none":    {map[string]string{"userSecretName": "", "keyring": "/etc/ceph/keyring"}, nil},
		"a secret beside a keyring has some": {map[string]string{"userSecretName": "lost", "keyring": "/etc/ceph/keyring"}, []string{strings.Replace(missing, "%s", "shop/lost", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.provision(t, optionsFor(classWith(test.class), claimOf()))
			if got := w.sent(); strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("events %q, want %q", got, test.want)
			}
		})
	}
}

func TestSecretsAreReadOneByOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.provision(t, optionsFor(classWith(nil), claimOf()))
	for _, action := range w.client.Actions() {
		get, ok := action.(clienttesting.GetAction)
		if !ok || !action.Matches("get", "secrets") {
			t.Errorf("the rights that we ask for do not cover: %s %s", action.GetVerb(), action.GetResource().Resource)
			continue
		}
		if name := get.GetNamespace() + "/" + get.GetName(); name != "ceph/admin" && name != "shop/user" {
			t.Errorf("read secret %s, which is nobody's", name)
		}
	}
	if got := len(w.client.Actions()); got != 2 {
		t.Errorf("%d requests to the API server, want 2", got)
	}
}
