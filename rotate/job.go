package rotate

import (
	"strconv"
	"strings"
	"time"

	"guard"
)

// with calls f with the job of a step, and wipes its values afterwards.
func (x *run) with(step string, f func(Job) error) error {
	at := time.Now()
	j := Job{
		Intent: x.rec.Intent, Step: step, Credential: x.c, Options: x.options, Emergency: x.rec.Emergency, Live: x.rec.Switched,
		OnPart:   func(part string) { x.note(part, at, nil) },
		OnExpiry: func(t time.Time) { x.rec.Expires = t.UTC() },
		ID:       x.rec.ID, Note: x.rec.Note,
		OnNames: func(id, user string) {
			x.rec.NewID = id
			if user != "" && x.rec.NewUser == "" {
				x.rec.User = x.c.User
			}
			x.rec.NewUser = user
		},
		OnNote: func(note string) error {
			x.rec.Note = note
			return x.r.Journal.save(x.rec)
		},
	}
	j.Credential.Version = x.rec.From.Version
	if x.rec.NewUser != "" {
		j.Credential.User = x.rec.User // that of Current
	}
	var err error
	if j.Current, err = x.r.Vault.Get(x.rec.From); err != nil {
		return err
	}
	defer j.Current.Wipe()
	if x.rec.To.Version != 0 {
		if j.Candidate, err = x.r.Vault.Get(x.rec.To); err != nil {
			return err
		}
		defer j.Candidate.Wipe()
	}
	if x.r.Spare != nil {
		j.Spare = func() []uint32 { return x.r.Spare(x.c.Context, x.c.Name) }
	}
	j.Put = func(name string, value guard.Secret) error {
		a, err := x.r.Vault.Find(x.c.Context, name)
		if err != nil {
			return err
		}
		_, err = x.r.Vault.Set(guard.Credential{Name: a.Name, Context: a.Context}, value.Clone())
		return err
	}
	j.Admin = func(name string) (guard.Secret, guard.Credential, error) {
		a, err := x.r.Vault.Find(x.c.Context, name)
		if err != nil {
			return guard.Secret{}, guard.Credential{}, err
		}
		v, err := x.r.Vault.Get(a.ID())
		return v, a, err
	}
	return f(j)
}

// idOf is what option id says of version from. After a mint it is ID#VERSION, and of
// no other version; what a person wrote, without one, is of the current version.
func idOf(options map[string]string, from guard.SecretID, current int) string {
	id, of, told := strings.Cut(options["id"], "#")
	if told && of != strconv.Itoa(from.Version) || !told && from.Version != current {
		return ""
	}
	return id
}
