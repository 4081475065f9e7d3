package web

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
	"guard/vault"
)

// runner is one over a fixture's credentials.
func runner(t *testing.T, fx rotatetest.Fixture) *rotate.Runner {
	t.Helper()
	dir := t.TempDir()
	v, err := vault.Create(filepath.Join(dir, "vault"), vault.KeyFile{Path: filepath.Join(dir, "key"), Create: true})
	must(t, err)
	t.Cleanup(v.Close)
	for _, o := range append([]rotatetest.Other{{Credential: fx.Credential, Value: fx.Value}}, fx.Others...) {
		o.Credential.Context = "test"
		_, err := v.Set(o.Credential, guard.NewSecret([]byte(o.Value)))
		must(t, err)
	}
	j, err := rotate.OpenJournal(filepath.Join(dir, "journal"))
	must(t, err)
	return &rotate.Runner{Vault: v, Journal: j, Providers: rotate.Providers{fx.Name: fx.Provider}, VerifyFor: time.Second, DeadFor: 5 * time.Second}
}

// jobOf is a job as the runner would make it.
func jobOf(t *testing.T, r *rotate.Runner, fx rotatetest.Fixture) rotate.Job {
	t.Helper()
	c, err := r.Vault.Find("test", fx.Credential.Name)
	must(t, err)
	_, options, err := r.Providers.Parse(c.Rotate)
	must(t, err)
	return rotate.Job{
		Intent: "i", Step: rotate.StepVerify, Credential: c, Options: options, Current: guard.NewSecret([]byte(fx.Value)),
		Admin: func(name string) (guard.Secret, guard.Credential, error) {
			a, err := r.Vault.Find("test", name)
			if err != nil {
				return guard.Secret{}, a, err
			}
			v, err := r.Vault.Get(a.ID())
			return v, a, err
		},
	}
}

func current(t *testing.T, r *rotate.Runner, name string) string {
	t.Helper()
	c, err := r.Vault.Find("test", name)
	must(t, err)
	v, err := r.Vault.Get(c.ID())
	must(t, err)
	return text(v)
}

// settled checks that the current value works and that no other does.
func settled(t *testing.T, r *rotate.Runner, fx rotatetest.Fixture) {
	t.Helper()
	versions, err := r.Vault.Versions("test", fx.Credential.Name)
	must(t, err)
	for _, ver := range versions {
		v, err := r.Vault.Get(guard.SecretID{Context: "test", Name: fx.Credential.Name, Version: ver.Number})
		must(t, err)
		err = fx.Login(text(v))
		if ver.State == vault.Current && err != nil || ver.State == vault.Dead && !errors.Is(err, rotate.ErrRefused) || ver.State != vault.Current && ver.State != vault.Dead {
			t.Errorf("version %d is %v: %v", ver.Number, ver.State, err)
		}
	}
}
