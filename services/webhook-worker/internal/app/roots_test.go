package app_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/keyring"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/app"
)

// authority makes a private authority and a certificate of it for 127.0.0.1; its own is given as PEM.
func authority(t *testing.T) (own []byte, receiver tls.Certificate) {
	sign := func(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
		require.NoError(t, err)
		return der
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	rootKey, leafKey := key(), key()
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "a private authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER := sign(root, root, rootKey, rootKey)
	leaf := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}),
		tls.Certificate{Certificate: [][]byte{sign(leaf, root, leafKey, rootKey)}, PrivateKey: leafKey}
}

func write(t *testing.T, text []byte) string {
	path := filepath.Join(t.TempDir(), "roots.pem")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// A receiver whose certificate is of a private authority is believed when WEBHOOK_CA_FILE has that one, beside another.
// The control is the same receiver without.
func TestPrivateAuthority(t *testing.T) {
	own, certificate := authority(t)
	other, _ := authority(t)
	for name, c := range map[string]struct {
		env            map[string]string
		outcome, cause string
	}{
		"with":    {map[string]string{"WEBHOOK_CA_FILE": write(t, append(append([]byte("# ours\n"), other...), own...))}, "delivered", ""},
		"without": {nil, "retrying", "tls"},
		"another": {map[string]string{"WEBHOOK_CA_FILE": write(t, other)}, "retrying", "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			receiver.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			receiver.Config.ErrorLog = log.New(io.Discard, "", 0) // it is told of those that refuse it
			receiver.StartTLS()
			t.Cleanup(receiver.Close)
			s := startWith(t, c.env)
			made, err := s.client.CreateEndpoint(caller(t.Context()), &webhooksv1.CreateEndpointRequest{Url: receiver.URL})
			require.NoError(t, err)
			id := made.GetEndpoint().GetId()
			s.log.Append(1, "webhook_endpoint", "post_create", id, "")
			s.log.Append(1, "task", "post_create", 1, "Call the client")
			require.NoError(t, s.publisher.Publish(t.Context()))
			var list *webhooksv1.ListAttemptsResponse
			eventually(t, "an attempt", func() bool {
				list, err = s.client.ListAttempts(caller(t.Context()), &webhooksv1.ListAttemptsRequest{EndpointId: proto.Int64(id)})
				return err == nil && len(list.GetData()) > 0
			})
			require.Equal(t, []string{c.outcome, c.cause}, []string{list.GetData()[0].GetOutcome(), list.GetData()[0].GetCause()}, list.GetData()[0].GetError())
		})
	}
}

// What cannot be used is said at the start, with the file's name.
func TestAuthoritiesThatAreNone(t *testing.T) {
	t.Parallel()
	own, _ := authority(t)
	absent := filepath.Join(t.TempDir(), "absent.pem")
	for path, want := range map[string]string{
		absent:                           "no such file",
		write(t, []byte("not PEM")):      "has no certificate in PEM",
		write(t, nil):                    "has no certificate in PEM",
		t.TempDir():                      "is a directory",
		write(t, append(own, broken...)): "certificate 2 of ",
	} {
		env := map[string]string{"DATABASE_URL": "postgres://b/c", "REDIS_URL": "redis://b", "INTERNAL_TOKEN": token, "ENCRYPTION_KEYS": keyring.Generate("a"), "WEBHOOK_CA_FILE": path}
		var out bytes.Buffer
		require.Equal(t, 2, app.Run(t.Context(), nil, func(k string) string { return env[k] }, &out), want)
		require.Contains(t, out.String(), "WEBHOOK_CA_FILE cannot be used: ")
		require.Contains(t, out.String(), path)
		require.Contains(t, out.String(), want)
	}
}

const broken = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"
