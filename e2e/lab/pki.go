package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki is a directory with the keys and certificates of the control plane.
type pki string

func (p pki) cert(name string) string { return filepath.Join(string(p), name+".crt") }
func (p pki) key(name string) string  { return filepath.Join(string(p), name+".key") }

// create writes the CA, the API server's certificate, its client certificate for the kubelets,
// and the key that signs ServiceAccount tokens.
func (p pki) create() error {
	if err := os.MkdirAll(string(p), 0o755); err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "rbd-lab"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caKey, err := p.issue("ca", ca, ca, nil)
	if err != nil {
		return err
	}
	for serial, leaf := range map[int64]struct {
		name string
		cert x509.Certificate
	}{
		2: {"apiserver", x509.Certificate{
			Subject:     pkix.Name{CommonName: "kube-apiserver"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			IPAddresses: []net.IP{net.ParseIP(HostIP), net.ParseIP(ServiceIP), net.IPv4(127, 0, 0, 1)},
			DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		}},
		3: {"kubelet-client", x509.Certificate{
			Subject:     pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}},
	} {
		leaf.cert.SerialNumber = big.NewInt(serial)
		leaf.cert.NotBefore, leaf.cert.NotAfter = ca.NotBefore, ca.NotAfter
		leaf.cert.KeyUsage = x509.KeyUsageDigitalSignature
		if _, err := p.issue(leaf.name, &leaf.cert, ca, caKey); err != nil {
			return err
		}
	}
	// The key is RSA because some clients support no other type for token issuers.
	tokens, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return p.writeKey("service-account", tokens)
}

// issue generates a key and a certificate. Without a parent's key the certificate is
// self-signed.
func (p pki) issue(name string, cert, parent *x509.Certificate, parentKey crypto.Signer) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		return nil, fmt.Errorf("issue certificate %s: %w", name, err)
	}
	if err := p.writeKey(name, key); err != nil {
		return nil, err
	}
	return key, writeFile(p.cert(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func (p pki) writeKey(name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(p.key(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
