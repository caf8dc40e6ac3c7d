package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// get reads a path of the API as the administrator. The lab needs no other access to the API.
// It works from outside the lab's network.
func (l *Lab) get(ctx context.Context, path string) ([]byte, error) {
	cp := l.ControlPlane()
	ca, err := os.ReadFile(cp.pki().cert("ca"))
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(cp.tokenFile(admin))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext:       l.Dial,
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			DisableKeepAlives: true,
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+HostIP+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, response.Status, bytes.TrimSpace(body))
	}
	return body, err
}

func base64Text(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
