package local

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Identities that Kubernetes' own roles know (system:kube-scheduler, ...), so that each component
// may do what it may in any cluster, and no more.
var identities = map[string]pkix.Name{
	"admin":                   {CommonName: "admin", Organization: []string{"system:masters"}},
	"apiserver":               {CommonName: "kube-apiserver"},
	"apiserver-kubelet":       {CommonName: "kube-apiserver-kubelet-client"},
	"etcd":                    {CommonName: "etcd"},
	"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
	"kube-scheduler":          {CommonName: "system:kube-scheduler"},
	"kube-proxy":              {CommonName: "system:kube-proxy"},
	"kubelet":                 {CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
}

// makeCertificates fills dir with a certificate authority (ca.crt, ca.key), a certificate signed by
// it for each identity (NAME.crt, NAME.key), and the key that signs service accounts' tokens (sa.key).
func makeCertificates(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	authority := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "holdfast-local-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	authorityKey, err := sign(dir, "ca", authority, authority, nil)
	if err != nil {
		return err
	}
	for name, subject := range identities {
		certificate := &x509.Certificate{
			Subject:     subject,
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(nodeAddress), net.ParseIP(apiServiceAddress)},
		}
		if _, err := sign(dir, name, certificate, authority, authorityKey); err != nil {
			return err
		}
	}
	// RSA: the only kind of key that every version's token verifier takes.
	tokenKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "sa.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(tokenKey))
}

// sign makes a key and a certificate for it, valid for a year, and writes both. Without a parent
// key the certificate signs itself.
func sign(dir, name string, certificate, parent *x509.Certificate, parentKey crypto.Signer) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	certificate.SerialNumber = serial
	certificate.NotBefore = time.Now().Add(-time.Hour) // clocks of namespaces and hosts may differ a little
	certificate.NotAfter = time.Now().AddDate(1, 0, 0)
	signed, err := x509.CreateCertificate(rand.Reader, certificate, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	encodedKey, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, errors.Join(
		writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", signed),
		writePEM(filepath.Join(dir, name+".key"), "EC PRIVATE KEY", encodedKey),
	)
}

func writePEM(path, kind string, bytes []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600)
}
