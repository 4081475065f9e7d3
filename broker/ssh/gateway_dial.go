package ssh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
)

// upstream is a connection to the server on which guard has logged in.
type upstream struct {
	xssh.Conn
	done chan struct{}
}

// Close ends the connection and waits for what reads from it.
func (u *upstream) Close() error {
	err := u.Conn.Close()
	<-u.done
	return err
}

// dial logs in at the server with one of the keys for it, each for the use that pick makes
// of it, or says why not; that is recorded then.
func (t *gate) dial(ctx context.Context, pick func(guard.Credential) guard.Use) (*upstream, guard.Use, *guard.Decision) {
	no := func(u guard.Use, d guard.Decision) (*upstream, guard.Use, *guard.Decision) {
		t.refuse(u, d)
		return nil, u, &d
	}
	ids := t.identities()
	if id, ok := find(ids, t.chosen); ok {
		ids = []identity{id}
	}
	if len(ids) == 0 {
		return no(pick(guard.Credential{}), refusal("ssh key", "no key that this session may use is for "+place{t.host, t.port}.String(), "guard secret ls", "guard run --allow NAME"))
	}
	s := &signing{g: t.g}
	var signers []xssh.Signer
	var last guard.Decision
	for _, id := range ids {
		u := pick(id.cred)
		if us := users(id.cred); len(us) > 0 && !slices.Contains(us, t.user) {
			s.use, last = u, refusal("ssh user", fmt.Sprintf("%s logs in as %s, and not as %s", id.cred.Name, strings.Join(us, " or "), quote(t.user)),
				"ssh "+us[0]+"@"+t.host, "guard secret edit "+id.cred.Name+" --user USER")
			continue
		}
		if d := t.g.Login.Decide(u); !d.Allowed() {
			s.use, last = u, d
			continue
		}
		signers = append(signers, s.signer(id, u))
	}
	if len(signers) == 0 {
		return no(s.use, last)
	}
	s.use = pick(ids[0].cred)
	dctx, cancel := context.WithTimeout(ctx, maxOpening2)
	defer cancel()
	raw, err := t.g.Login.Dial(dctx, t.host, t.port)
	if err != nil {
		var e *broker.EgressError
		if errors.As(err, &e) {
			return no(s.use, e.Decision)
		}
		return no(s.use, refusal("ssh connect", place{t.host, t.port}.String()+" cannot be reached", "try again later, or ask the user: guard run --resolve, --allow-host"))
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	_ = raw.SetDeadline(time.Now().Add(maxOpening2))
	algorithms := t.hostKeys()
	config := &xssh.ClientConfig{
		User: t.user, ClientVersion: "SSH-2.0-guard", HostKeyAlgorithms: algorithms,
		Auth: []xssh.AuthMethod{xssh.PublicKeys(signers...)},
		HostKeyCallback: func(_ string, _ net.Addr, key xssh.PublicKey) error {
			at := s.use
			if d := t.who.locate(&at, key, place{t.host, t.port}); d != nil {
				s.refused = d
				return errRefused
			}
			return nil
		},
	}
	conn, chans, reqs, err := xssh.NewClientConn(raw, t.host, config)
	if err != nil {
		raw.Close()
		switch {
		case s.refused != nil && s.recorded:
			t.who.tell(s.use, *s.refused)
			return nil, s.use, s.refused
		case s.refused != nil:
			return no(s.use, *s.refused)
		case s.asked || strings.Contains(err.Error(), "unable to authenticate"): // the library has no type for it
			return no(s.use, refusal("ssh login", place{t.host, t.port}.String()+" lets "+quote(t.user)+" in with none of the keys that the session may use", "look at the user's name", "tell the user: the key's public half has to be known to the server"))
		}
		return no(s.use, refusal("ssh connect", place{t.host, t.port}.String()+" speaks no ssh that guard understands, or ended the connection", "try again later"))
	}
	_ = raw.SetDeadline(time.Time{})
	up := &upstream{conn, make(chan struct{})}
	go func() { // owned by up.Close, which every caller of dial calls
		defer close(up.done)
		requests := make(chan struct{})
		go func() { xssh.DiscardRequests(reqs); close(requests) }()
		for nc := range chans {
			_ = nc.Reject(xssh.Prohibited, "not asked for")
		}
		<-requests
	}()
	return up, s.use, nil
}

// hostKeys are the algorithms of the keys that the user knows for the server, which is then
// asked for one of these; nil: all.
func (t *gate) hostKeys() []string {
	if t.g.Agent.KnownHosts == nil {
		return nil
	}
	k, err := t.g.Agent.KnownHosts()
	if err != nil {
		return nil // locate says so
	}
	return k.algorithms(t.host, t.port)
}

// signing makes the signatures of one login, each a use of its key.
type signing struct {
	g        *Gateway
	use      guard.Use // of the key that was asked for last
	asked    bool
	refused  *guard.Decision
	recorded bool // refused is in the log
}

func (s *signing) signer(id identity, u guard.Use) xssh.Signer {
	k := &loginSigner{s: s, id: id, use: u}
	if id.key.Type() == xssh.KeyAlgoRSA {
		m, err := xssh.NewSignerWithAlgorithms(k, []string{xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256})
		if err == nil {
			return m
		}
	}
	return k
}

// loginSigner signs one login with a key of the vault.
type loginSigner struct {
	s   *signing
	id  identity
	use guard.Use
}

func (k *loginSigner) PublicKey() xssh.PublicKey { return k.id.key }

func (k *loginSigner) Sign(r io.Reader, data []byte) (*xssh.Signature, error) {
	alg, ok := algorithm(k.id.key, 0)
	if !ok {
		return nil, errRefused // RSA with SHA-1
	}
	return k.SignWithAlgorithm(r, data, alg)
}

func (k *loginSigner) SignWithAlgorithm(_ io.Reader, data []byte, alg string) (sig *xssh.Signature, err error) {
	s := k.s
	s.asked, s.use = true, k.use
	s.use.At = s.g.Agent.now()
	d, err := s.g.Login.Use(s.use, func(v guard.Secret) (string, error) {
		var err error
		if sig, err = signOnce(k.id, v, data, alg); err != nil {
			return "failed", err
		}
		return "signed", nil
	})
	switch {
	case errors.Is(err, broker.ErrRefused):
		s.refused, s.recorded = &d, true
	case errors.Is(err, errReplaced):
		r := refusal("ssh key", "the key was replaced just now", "connect again")
		s.refused = &r
	case err != nil:
		r := refusal("ssh key", "the value of "+k.use.Credential.Name+" could not be used to sign: "+err.Error(), "guard secret set "+k.use.Credential.Name+" --stdin < KEYFILE")
		s.refused = &r
	}
	return sig, err
}

// words are a refusal for a person on one line.
func words(d guard.Decision) string {
	text := "guard: refused: " + d.Reason + " (rule " + quote(d.Rule) + ")"
	if len(d.NextSteps) > 0 {
		text += "; next: " + strings.Join(d.NextSteps, "; or ")
	}
	return text
}

// explain are a refusal's words and, on a second line, its keys for a program.
func explain(u guard.Use, d guard.Decision) []byte {
	j, err := json.Marshal(struct {
		Error string `json:"error"`
		broker.Refusal
	}{"guard_denied", broker.Refusal{Layer: "ssh", Credential: u.Credential.Name, Host: u.Host, Method: u.Method, Path: u.Resource,
		Rule: d.Rule, Reason: d.Reason, NextSteps: d.NextSteps, RequestID: broker.RequestID(d)}})
	if err != nil {
		j = nil // strings are never an error
	}
	return append(append([]byte(words(d)+"\n"), j...), '\n')
}
