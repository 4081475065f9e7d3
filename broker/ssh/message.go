package ssh

import (
	"encoding/binary"
	"errors"
)

// Message types of draft-ietf-sshm-ssh-agent, section 6.1.
const (
	msgFailure          = 5
	msgSuccess          = 6
	msgRequestIDs       = 11
	msgIDsAnswer        = 12
	msgSign             = 13
	msgSignResponse     = 14
	msgExtension        = 27
	msgExtensionFailure = 28
	msgExtensionAnswer  = 29

	flagSHA256 = 2 // SSH_AGENT_RSA_SHA2_256
	flagSHA512 = 4 // SSH_AGENT_RSA_SHA2_512
)

// changing are the messages that would change what the agent holds.
var changing = map[byte]string{
	17: "add a key", 18: "remove a key", 19: "remove all keys", 20: "add a smartcard", 21: "remove a smartcard",
	22: "lock the agent", 23: "unlock the agent", 25: "add a key", 26: "add a smartcard",
}

const extBind = "session-bind@openssh.com"

// reader takes SSH's data types (RFC 4251, section 5) from b. What is read after
// the first error is empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

// bool takes 0 or 1: other bytes would be true too, which makes two readings.
func (r *reader) bool() bool {
	c := r.byte()
	if c > 1 {
		r.bad = true
	}
	return c == 1
}

func (r *reader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) string() []byte {
	n := r.uint32()
	if n > uint32(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// end says whether all was read, and nothing is left.
func (r *reader) end() bool { return !r.bad && len(r.b) == 0 }

func putString[T string | []byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// userauth is the data of a login by key.
type userauth struct {
	session []byte
	user    string
	method  string
	alg     string
	key     []byte
	hostKey []byte // of the host-bound method only
}

// sshsig is the data of a signature by `ssh-keygen -Y sign`.
type sshsig struct{ namespace string }

var errData = errors.New("neither a login by key nor an SSHSIG")

const sigMagic = "SSHSIG"

// parseSig reads the data of an SSHSIG. The digest's length is checked since the
// rest of the blob is fixed by it.
func parseSig(data []byte) (sshsig, error) {
	r := reader{b: data}
	magic := string(r.take(len(sigMagic)))
	s := sshsig{namespace: string(r.string())}
	reserved := r.string()
	hash := string(r.string())
	digest := r.string()
	want := map[string]int{"sha256": 32, "sha512": 64}[hash]
	if !r.end() || magic != sigMagic || want == 0 || len(digest) != want || len(reserved) > 0 {
		return sshsig{}, errData
	}
	return s, nil
}

const (
	methodPlain = "publickey"
	methodBound = "publickey-hostbound-v00@openssh.com"
)

// parseUserauth reads the data of RFC 4252, section 7, to its last byte.
func parseUserauth(data []byte) (userauth, error) {
	r := reader{b: data}
	u := userauth{session: r.string()}
	typ := r.byte()
	u.user = string(r.string())
	service := string(r.string())
	u.method = string(r.string())
	signed := r.bool()
	u.alg = string(r.string())
	u.key = r.string()
	if u.method == methodBound {
		u.hostKey = r.string()
	}
	switch {
	case !r.end(), typ != 50, service != "ssh-connection", !signed, u.method != methodPlain && u.method != methodBound:
		return userauth{}, errData
	case len(u.session) < minSession || len(u.session) > maxSession, u.user == "":
		return userauth{}, errData
	}
	return u, nil
}

// An exchange hash is SHA-1 to SHA-512.
const minSession, maxSession = 20, 64
