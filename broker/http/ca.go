package http

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// CA signs the certificates that the session's clients see. Its key lives in
// memory only, as long as the session.
type CA struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
	leaf *ecdsa.PrivateKey // one key for all leaves: they live in the same memory

	mu    sync.Mutex
	cache map[string]*list.Element
	age   *list.List
}

type cached struct {
	name  string
	cert  *tls.Certificate
	until time.Time
}

const (
	caLife   = 30 * 24 * time.Hour
	leafLife = 24 * time.Hour
	maxLeafs = 2048
)

// NewCA makes a certificate authority for one session.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make leaf key: %w", err)
	}
	ski, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "guard session CA", Organization: []string{"guard"}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          ski,
		AuthorityKeyId:        ski,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate: %w", err)
	}
	return &CA{
		cert: cert, key: key, leaf: leaf,
		pem:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		cache: map[string]*list.Element{}, age: list.New(),
	}, nil
}

// CAPEM returns the CA's certificate, for the session's trust files.
func (ca *CA) CAPEM() []byte { return append([]byte(nil), ca.pem...) }

// Leaf returns a certificate for host, a name or an address in text form.
func (ca *CA) Leaf(host string) (*tls.Certificate, error) {
	now := time.Now()
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if el := ca.cache[host]; el != nil {
		if c := el.Value.(*cached); now.Before(c.until) {
			ca.age.MoveToFront(el)
			return c.cert, nil
		}
		ca.drop(el)
	}
	ski, err := keyID(&ca.leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	cn := host
	if len(cn) > 64 { // ub-common-name of RFC 5280
		cn = "guard"
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          ski,
		AuthorityKeyId:        ca.cert.SubjectKeyId,
	}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &ca.leaf.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate for %s: %w", host, err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: ca.leaf}
	if ca.age.Len() >= maxLeafs {
		ca.drop(ca.age.Back())
	}
	ca.cache[host] = ca.age.PushFront(&cached{name: host, cert: cert, until: now.Add(leafLife / 2)})
	return cert, nil
}

func (ca *CA) drop(el *list.Element) {
	delete(ca.cache, el.Value.(*cached).name)
	ca.age.Remove(el)
}

// keyID is method 1 of RFC 7093.
func keyID(pub *ecdsa.PublicKey) ([]byte, error) {
	raw, err := pub.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(raw)
	return sum[:20], nil
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}
