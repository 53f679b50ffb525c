package app

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

// roots are the certificates that receivers' chains may end in: the system's and those of a PEM file. They are nil, the
// system's alone, for an empty path. Errors name the file. What is in it beside certificates is passed over; a certificate
// that does not parse is an error, as its receivers would be refused without anybody knowing why.
func roots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err // has the path
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificates, beside those of %s: %w", path, err)
	}
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		n++
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of %s: %w", n, path, err)
		}
		pool.AddCert(certificate)
	}
	if n == 0 {
		return nil, fmt.Errorf("%s has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path)
	}
	return pool, nil
}
