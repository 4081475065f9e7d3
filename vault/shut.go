package vault

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrTicket: a ticket or what answers one is not of this vault, or was used.
var ErrTicket = errors.New("not a ticket of this vault")

// ticket is what a locked vault asks for its keys with. Only who had the vault open could make
// its MAC, and only the process that made it has the private half of Key, so that a
// ticket that is copied, changed or given in again opens nothing.
type ticket struct {
	Vault  string   `json:"vault"`
	Key    []byte   `json:"key"`              // X25519
	Sealed []string `json:"sealed,omitempty"` // contexts whose seals it had open
	MAC    []byte   `json:"mac"`
}

// answer is what Admit gives.
type answer struct {
	Key []byte `json:"key"` // X25519, of this answer only
	Box []byte `json:"box"`
}

// admitted is what is in its box.
type admitted struct {
	MK    []byte            `json:"mk"`
	Seals map[string][]byte `json:"seals,omitempty"`
}

// ticketKey is the private half, in locked memory, while the vault is locked.
type ticketKey struct {
	private []byte
	public  []byte
	seals   map[string][]byte // what Seal still has, by purpose
}

func (v *Vault) usable() error {
	switch {
	case v.closed:
		return ErrClosed
	case v.ticket != nil:
		return fmt.Errorf("%w: guard unlock opens it", ErrLocked)
	}
	return nil
}

// Locked says whether Shut was the last of Shut and Reopen.
func (v *Vault) Locked() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ticket != nil
}

// Shut wipes every key and all that was decrypted, and returns a ticket, which is no secret:
// with it, another process that opens the vault can let this one open it again. Until
// then everything answers ErrLocked, but Seal for the purposes that are named: their keys are
// kept in locked memory, so that what was found meanwhile can be put away. Values that were
// given out are their holders' to wipe.
func (v *Vault) Shut(sealing ...string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	keep := map[string][]byte{}
	for _, p := range sealing {
		k, err := v.rootKey("seal/" + p)
		if err != nil {
			return nil, err
		}
		keep[p] = k
	}
	mac, err := v.rootKey("ticket")
	if err != nil {
		return nil, err
	}
	defer clear(mac)
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("lock the vault: %w", err)
	}
	t := ticket{Vault: v.id, Key: k.PublicKey().Bytes(), Sealed: slices.Sorted(maps.Keys(v.seals))}
	t.MAC = t.sum(mac)
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("lock the vault: %w", err)
	}
	v.master.reset()
	v.ctx.reset()
	v.sealKeys.reset()
	clear(v.cks)
	clear(v.seals)
	v.mk, v.lentKey = nil, nil
	v.st.opened = map[string]*segment{}
	private, err := v.master.put(k.Bytes())
	if err != nil {
		return nil, err
	}
	for p, k := range keep {
		if keep[p], err = v.master.put(k); err != nil {
			return nil, err
		}
	}
	v.ticket = &ticketKey{private: private, public: t.Key, seals: keep}
	return b, nil
}

func (t ticket) sum(key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(aad(t.Vault, strings.Join(t.Sealed, "\n"), string(t.Key), 0, "ticket"))
	return h.Sum(nil)
}

func readTicket(b []byte) (t ticket, err error) {
	if len(b) > 1<<16 || decode(b, &t) != nil {
		return t, ErrTicket
	}
	return t, nil
}

// TicketContexts are the sealed contexts that a ticket's process had open: Admit wants them open.
func TicketContexts(b []byte) ([]string, error) {
	t, err := readTicket(b)
	return t.Sealed, err
}

// Admit answers the ticket of a process that is locked: Reopen there takes what it returns,
// which nobody else can read. ErrTicket; ErrSealed: it had a context open that is not open here.
func (v *Vault) Admit(b []byte) ([]byte, error) {
	t, err := readTicket(b)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	mac, err := v.rootKey("ticket")
	if err != nil {
		return nil, err
	}
	defer clear(mac)
	if t.Vault != v.id || !hmac.Equal(t.MAC, t.sum(mac)) {
		return nil, ErrTicket
	}
	in := admitted{MK: v.mk}
	for _, name := range t.Sealed {
		if v.seals[name] == nil {
			return nil, sealedError(name)
		}
		if in.Seals == nil {
			in.Seals = map[string][]byte{}
		}
		in.Seals[name] = v.seals[name]
	}
	pub, err := ecdh.X25519().NewPublicKey(t.Key)
	if err != nil {
		return nil, ErrTicket
	}
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("answer a ticket: %w", err)
	}
	shared, err := k.ECDH(pub)
	if err != nil {
		return nil, ErrTicket
	}
	defer clear(shared)
	plain, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("answer a ticket: %w", err)
	}
	defer clear(plain)
	own := k.PublicKey().Bytes()
	return json.Marshal(answer{Key: own, Box: seal(derive(shared, admitInfo(own, t.Key)), plain, aad(v.id, "", "", 0, "admit"))})
}

func admitInfo(from, to []byte) string {
	return "admit/" + hex.EncodeToString(from) + "/" + hex.EncodeToString(to)
}

// Reopen takes what Admit returned for the ticket of the last Shut. ErrTicket: it is for another
// one; the vault stays locked, as it does where the keys do not open its file.
func (v *Vault) Reopen(b []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrClosed
	}
	if v.ticket == nil {
		return nil
	}
	var a answer
	if len(b) > 1<<20 || decode(b, &a) != nil {
		return ErrTicket
	}
	private, err := ecdh.X25519().NewPrivateKey(v.ticket.private)
	if err != nil {
		return fmt.Errorf("open the vault again: %w", err)
	}
	pub, err := ecdh.X25519().NewPublicKey(a.Key)
	if err != nil {
		return ErrTicket
	}
	shared, err := private.ECDH(pub)
	if err != nil {
		return ErrTicket
	}
	defer clear(shared)
	plain, err := open(derive(shared, admitInfo(a.Key, v.ticket.public)), a.Box, aad(v.id, "", "", 0, "admit"))
	if err != nil {
		return ErrTicket
	}
	defer clear(plain)
	var in admitted
	if err := decode(plain, &in); err != nil || len(in.MK) != keySize {
		return ErrTicket
	}
	return v.resume(in)
}

// resume reads the file as it is now with the keys in in, which it wipes. Caller holds mu.
func (v *Vault) resume(in admitted) error {
	defer clear(in.MK)
	defer func() {
		for _, sk := range in.Seals {
			clear(sk)
		}
	}()
	raw, stamp, err := readVault(v.dir)
	if err != nil {
		return err
	}
	st, err := parse(raw)
	if err != nil {
		return fmt.Errorf("open the vault again: %w", err)
	}
	if st.id != v.id || st.gen < v.st.gen {
		return fmt.Errorf("open the vault again: %w", ErrRolledBack)
	}
	if err := st.openIndex(in.MK); err != nil {
		return fmt.Errorf("open the vault again: %w", err)
	}
	st.stamp = stamp
	v.master.reset() // the ticket's key: it is good for one answer
	v.ticket = nil
	if v.mk, err = v.master.put(in.MK); err != nil {
		return err
	}
	for name, sk := range in.Seals {
		if v.seals[name], err = v.sealKeys.put(sk); err != nil {
			return err
		}
	}
	v.st = st
	return nil
}
