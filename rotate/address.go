package rotate

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"guard"
)

// Address is where a provider logs in: options host, port and user, else the
// credential's first host and its user. The user may be "".
func (j Job) Address(port string) (host, at, user string, err error) {
	o := j.Options
	host, at, user = o["host"], o["port"], o["user"]
	if host == "" && len(j.Credential.Hosts) > 0 {
		host = j.Credential.Hosts[0]
		if h, p, err := net.SplitHostPort(host); err == nil {
			if host = h; at == "" {
				at = p
			}
		}
	}
	if host == "" || strings.Contains(host, "*") {
		return "", "", "", fmt.Errorf("where is the server of %s? add host=... to its rotate option: %w", j.Credential.Name, ErrPermanent)
	}
	if at == "" {
		at = port
	}
	if _, err := strconv.ParseUint(at, 10, 16); err != nil {
		return "", "", "", fmt.Errorf("the port of %s's rotate option is not a number: %w", j.Credential.Name, ErrPermanent)
	}
	if user == "" {
		user = j.Credential.User
	}
	return host, at, user, nil
}

// Loopback says whether host is this machine.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasPrefix(host, "/") || ip != nil && ip.IsLoopback()
}

// TLS is the configuration that options tls and ca ask for: nil for tls=no, which
// is the default on the loopback alone.
func (j Job) TLS(host string) (*tls.Config, error) {
	switch j.Options["tls"] {
	case "no":
		return nil, nil
	case "":
		if Loopback(host) && j.Options["ca"] == "" {
			return nil, nil
		}
	case "yes":
	default:
		return nil, fmt.Errorf("option tls of %s's rotate option wants yes or no: %w", j.Credential.Name, ErrPermanent)
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if file := j.Options["ca"]; file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("the ca file of %s's rotate option cannot be read: %w", j.Credential.Name, ErrPermanent)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("the ca file of %s's rotate option holds no certificate: %w", j.Credential.Name, ErrPermanent)
		}
	}
	return c, nil
}

// NewValue makes a new value in the shape of the old one: n random letters and
// digits, or the same URL with those for its password.
func NewValue(old guard.Secret, n int) (guard.Secret, error) {
	fresh := NewPassword(n)
	b := old.Reveal()
	if !strings.Contains(string(b), "://") {
		return fresh, nil
	}
	defer fresh.Wipe()
	u, err := url.Parse(string(b))
	if err != nil || u.User == nil {
		return guard.Secret{}, fmt.Errorf("the old value looks like a URL and has no password in it: %w", ErrPermanent)
	}
	// The user is written as it was: url.UserPassword would escape it anew.
	scheme, rest, _ := strings.Cut(string(b), "://")
	at := strings.LastIndexByte(rest[:len(rest)-len(pathOf(rest))], '@')
	user, _, _ := strings.Cut(rest[:at], ":")
	return guard.NewSecret([]byte(scheme + "://" + user + ":" + string(fresh.Reveal()) + rest[at:])), nil
}

// pathOf is what follows the authority of a URL.
func pathOf(rest string) string {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return rest[i:]
	}
	return ""
}

// Password is what a value logs in with: the value, or the password in it if it is a
// URL, which is then user's. The caller wipes it.
func Password(c guard.Credential, value guard.Secret) (user string, password guard.Secret, err error) {
	b := value.Reveal()
	if !strings.Contains(string(b), "://") {
		return c.User, value.Clone(), nil
	}
	u, err := url.Parse(string(b))
	if err != nil || u.User == nil {
		return "", guard.Secret{}, fmt.Errorf("%s looks like a URL and has no password in it: %w", c.Name, ErrPermanent)
	}
	p, _ := u.User.Password()
	if user = u.User.Username(); user == "" {
		user = c.User
	}
	return user, guard.NewSecret([]byte(p)), nil
}
