package ssh

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
)

// sign is one request to sign, from top to bottom.
func (c *conn) sign(blob, data []byte, flags uint32) []byte {
	failure := []byte{msgFailure}
	none := c.use(guard.Credential{}, actConnect)
	if c.barred != nil {
		c.refuse(none, *c.barred)
		return failure
	}
	id, ok := find(c.a.identities(c), blob)
	if !ok {
		c.refuse(none, refusal("ssh key", "the key is none that this session may use, or was replaced", "ask for the keys again: ssh-add -L"))
		return failure
	}
	if c.a.Use == nil {
		return failure
	}
	u, alg, d := c.judge(id, data, flags)
	if d != nil {
		c.refuse(u, *d)
		return failure
	}
	var sig *xssh.Signature
	d2, err := c.a.use(u, func(s guard.Secret) (string, error) {
		var err error
		if sig, err = signOnce(id, s, data, alg); err != nil {
			return "failed", err
		}
		return "signed", nil
	})
	switch {
	case errors.Is(err, broker.ErrRefused):
		c.tell(u, d2)
	case errors.Is(err, errReplaced):
		c.tell(u, refusal("ssh key", "the key was replaced just now", "connect again"))
	case err != nil:
		c.tell(u, refusal("ssh key", "the value of "+u.Credential.Name+" could not be used to sign: "+err.Error(), "guard secret set "+u.Credential.Name+" --stdin < KEYFILE"))
	}
	if err != nil || sig == nil {
		return failure
	}
	return putString([]byte{msgSignResponse}, putString(putString(nil, sig.Format), sig.Blob))
}

func (a *Agent) use(u guard.Use, send func(guard.Secret) (string, error)) (guard.Decision, error) {
	if a.Use == nil {
		return guard.Decision{}, errRefused
	}
	return a.Use(u, send)
}

var errReplaced = errors.New("the key is another one now")

// signOnce makes one signature with the value that the use line gives.
func signOnce(id identity, s guard.Secret, data []byte, alg string) (*xssh.Signature, error) {
	if id.pair != nil {
		return id.pair.signer.Sign(rand.Reader, data)
	}
	signer, wipe, err := parse(s)
	if err != nil {
		return nil, err
	}
	defer wipe()
	if !bytes.Equal(signer.PublicKey().Marshal(), id.blob) {
		return nil, errReplaced
	}
	if as, ok := signer.(xssh.AlgorithmSigner); ok {
		return as.SignWithAlgorithm(rand.Reader, data, alg)
	}
	return signer.Sign(rand.Reader, data)
}

// judge finds out what is to be signed and for whom: a use for policy to decide,
// or why there is none.
func (c *conn) judge(id identity, data []byte, flags uint32) (u guard.Use, alg string, d *guard.Decision) {
	u = c.use(id.cred, actConnect)
	no := func(rule, reason string, next ...string) (guard.Use, string, *guard.Decision) {
		r := refusal(rule, reason, next...)
		return u, "", &r
	}
	alg, ok := algorithm(id.key, flags)
	if !ok {
		return no("ssh algorithm", "the client wants a signature with SHA-1, or one that this key cannot make", "use a client that knows rsa-sha2-256 or rsa-sha2-512, or an Ed25519 key")
	}
	if bytes.HasPrefix(data, []byte(sigMagic)) {
		u.Action = actSign
		s, err := parseSig(data)
		switch {
		case err != nil:
			return no("ssh data", "what is to be signed is no complete SSHSIG", "sign with git commit -S or ssh-keygen -Y sign -n git")
		case s.namespace != "git":
			return no("ssh namespace", "signatures are made for git alone, and this one is for "+quote(s.namespace), "sign with git commit -S or ssh-keygen -Y sign -n git")
		case id.pair != nil:
			return no("ssh namespace", "the key of a certificate lives for this session only, so that nobody could check its signatures later", "store a key of kind ssh-key for them")
		}
		u.Resource, u.Method = s.namespace, "sshsig"
		// No connection is in a git signature; who asks for it has to be there.
		if u.PID, u.Exe = broker.Process(c.self); u.PID <= 0 {
			return no("ssh process", "guard cannot name the process of this session that wants a git signature: it is gone, or another one's connection to the agent is used", "connect to the agent and sign in one process, as ssh-keygen does")
		}
		return u, alg, nil
	}
	a, err := parseUserauth(data)
	if err != nil {
		return no("ssh data", "what is to be signed is neither a login by key nor a git signature", "use ssh, or sign with git commit -S")
	}
	u.Resource, u.Method = a.user, a.method
	if !bytes.Equal(a.key, id.blob) || a.alg != algorithmName(id.key, alg) {
		return no("ssh data", "the login to be signed is for another key or algorithm than the one asked for", "use ssh")
	}
	key, at, d := c.host(a)
	if d != nil {
		return u, "", d
	}
	if len(a.hostKey) > 0 && !bytes.Equal(a.hostKey, key.Marshal()) {
		return no("ssh host key", "the login to be signed names another host key than the server has", "tell the user: somebody may be in between")
	}
	gateway := c.a.gatewayKey()
	if gateway == nil || !same(key, gateway) {
		if d := c.locate(&u, key, at); d != nil {
			return u, "", d
		}
		if gateway != nil && broker.MatchHost(id.cred.Hosts, at.host, at.port) {
			// Nobody would see what goes over it.
			return no("ssh connection", "guard does not end this connection, and what goes over it would not be seen", "name the port: guard secret edit "+id.cred.Name+" --host "+at.String(), "start the session again, if the host is a new one of the key")
		}
	}
	u.Host, u.Port = at.host, at.port
	if us := users(id.cred); len(us) > 0 && !slices.Contains(us, a.user) {
		return no("ssh user", fmt.Sprintf("%s logs in as %s, and not as %s", id.cred.Name, strings.Join(us, " or "), quote(a.user)),
			"ssh "+us[0]+"@"+u.Host, "guard secret edit "+id.cred.Name+" --user USER")
	}
	return u, alg, nil
}

// algorithm is the signature's: of an RSA key the flags choose.
func algorithm(key xssh.PublicKey, flags uint32) (string, bool) {
	if cert, ok := key.(*xssh.Certificate); ok {
		key = cert.Key
	}
	if flags&^(flagSHA256|flagSHA512) != 0 {
		return "", false
	}
	switch key.Type() {
	case xssh.KeyAlgoRSA:
		switch {
		case flags&flagSHA512 != 0: // OpenSSH's agent looks in this order
			return xssh.KeyAlgoRSASHA512, flags == flagSHA512
		case flags&flagSHA256 != 0:
			return xssh.KeyAlgoRSASHA256, true
		}
		return "", false
	case xssh.KeyAlgoED25519, xssh.KeyAlgoECDSA256, xssh.KeyAlgoECDSA384, xssh.KeyAlgoECDSA521:
		return key.Type(), true
	}
	return "", false
}

// algorithmName is how a login calls it.
func algorithmName(key xssh.PublicKey, alg string) string {
	if _, ok := key.(*xssh.Certificate); ok {
		return key.Type()
	}
	return alg
}

// host finds the connection that the login is for among those that guard carries,
// and the host key that is proven for it. What a client binds proves the host, and
// not that the connection is one of this session: the agent's socket can be
// forwarded to elsewhere.
func (c *conn) host(a userauth) (xssh.PublicKey, place, *guard.Decision) {
	if c.bound && !bytes.Equal(a.session, c.sid) {
		d := refusal("ssh session-bind", "the login to be signed is for another connection than the one that the client proved", "use ssh")
		return nil, place{}, &d
	}
	key, at, ok := c.a.wires.find(a.session)
	if !ok {
		d := refusal("ssh connection", "guard did not see this connection: the login is for none that is open in this session and goes straight to its server",
			"connect directly: a login through another host (ssh -J, ProxyJump) is hidden in that host's connection", "log in from inside of the session: its agent cannot be used from elsewhere")
		return nil, place{}, &d
	}
	return key, at, nil
}

// locate checks that key is the one of the host that the connection goes to, and
// names it in u, for policy to decide.
func (c *conn) locate(u *guard.Use, key xssh.PublicKey, at place) *guard.Decision {
	u.Host, u.Port = at.host, at.port
	finger := xssh.FingerprintSHA256(key)
	hosts := &KnownHosts{}
	if c.a.KnownHosts != nil {
		k, err := c.a.KnownHosts()
		if err != nil {
			d := refusal("ssh host key", "known_hosts cannot be read: "+err.Error(), "look at ~/.ssh/known_hosts")
			return &d
		}
		hosts = k
	}
	switch hosts.check(at.host, at.port, key, c.a.now()) {
	case known:
		return nil // of another host than the credential's: policy refuses it by its own rule
	case revoked:
		d := refusal("ssh host key", "the key "+finger+" of "+at.String()+" is marked @revoked in known_hosts", "tell the user")
		return &d
	case changed:
		d := refusal("ssh host key", "the key "+finger+" is not the one that known_hosts has for "+at.String(), "tell the user: somebody may be in between, or the server was set up anew (ssh-keygen -R, then connect once outside of the session)")
		return &d
	}
	d := refusal("ssh host key", "the host key "+finger+" is in no known_hosts for "+at.String(), "the user can check it and connect once outside of the session, or name a file with it: guard run --ssh-known-hosts FILE ...")
	return &d
}

func (p place) String() string { return net.JoinHostPort(p.host, strconv.Itoa(p.port)) }

// quote makes what a client chose fit to be shown.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strconv.QuoteToASCII(s)
}
