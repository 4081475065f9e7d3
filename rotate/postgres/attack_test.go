package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

const (
	oldValue = "old-value-of-the-role-1"
	newValue = "new-value-of-the-role-2"
	bossWord = "the-admin-value-1234"
)

func secret(s string) guard.Secret { return guard.NewSecret([]byte(s)) }

// job rotates role on srv with the admin credential boss.
func job(srv *rotatetest.Postgres, role string, options ...string) rotate.Job {
	j := rotate.Job{
		Intent: "0123456789", Step: rotate.StepMint, Credential: guard.Credential{Name: "db", User: role, Hosts: []string{fmt.Sprintf("%s:%d", srv.Host, srv.Port)}},
		Options: map[string]string{"admin": "boss"}, Current: secret(oldValue), Candidate: secret(newValue),
		Admin: func(name string) (guard.Secret, guard.Credential, error) {
			return secret(bossWord), guard.Credential{Name: name, User: "boss"}, nil
		},
	}
	for i := 0; i+1 < len(options); i += 2 {
		j.Options[options[i]] = options[i+1]
	}
	return j
}

func TestAgainstServer(t *testing.T) {
	srv := start(t)
	must(t, srv.Exec(`CREATE ROLE plain LOGIN PASSWORD '`+bossWord+`'`))
	n := 0
	fresh := func(t *testing.T, attributes string) string {
		n++
		role := fmt.Sprintf("r%d", n)
		must(t, srv.Exec(fmt.Sprintf(`CREATE ROLE %s LOGIN %s PASSWORD '%s'`, role, attributes, oldValue)))
		return role
	}
	as := func(user string) func(string) (guard.Secret, guard.Credential, error) {
		return func(name string) (guard.Secret, guard.Credential, error) {
			return secret(bossWord), guard.Credential{Name: name, User: user}, nil
		}
	}
	ctx := context.Background()

	t.Run("missing privileges name the statement", func(t *testing.T) {
		role := fresh(t, "")
		j := job(srv, role)
		j.Admin = as("plain")
		_, err := Provider{}.Mint(ctx, j)
		if err == nil || !errors.Is(err, rotate.ErrPermanent) || !strings.Contains(err.Error(), `ALTER ROLE "plain" CREATEROLE`) {
			t.Errorf("mint: %v", err)
		}
		must(t, srv.Exec(`ALTER ROLE plain CREATEROLE`))
		defer srv.Exec(`ALTER ROLE plain NOCREATEROLE`)
		if _, err := (Provider{}).Mint(ctx, j); err != nil {
			t.Fatal(err)
		}
		c, err := srv.Connect(role, newValue, "postgres")
		must(t, err)
		defer c.Close(ctx)
		if err := (Provider{}).Revoke(ctx, j); err == nil || !strings.Contains(err.Error(), `GRANT pg_signal_backend TO "plain"`) {
			t.Errorf("revoke: %v", err)
		}
	})

	t.Run("superusers are not touched unless asked", func(t *testing.T) {
		role := fresh(t, "SUPERUSER")
		j := job(srv, role)
		delete(j.Options, "admin")
		if _, err := (Provider{}).Mint(ctx, j); err == nil || !strings.Contains(err.Error(), "superuser=yes") {
			t.Errorf("mint: %v", err)
		}
		if err := (Provider{}).Check(ctx, j); err == nil {
			t.Error("Check says nothing about it")
		}
		j.Options["superuser"] = "yes"
		if _, err := (Provider{}).Mint(ctx, j); err != nil {
			t.Error(err)
		}
	})

	t.Run("somebody else's NOLOGIN stays", func(t *testing.T) {
		role := fresh(t, "")
		must(t, srv.Exec(`ALTER ROLE `+role+` NOLOGIN`))
		j := job(srv, role)
		j.Emergency = true
		if err := (Provider{}).Revoke(ctx, j); err == nil || !strings.Contains(err.Error(), "NOLOGIN, and not by guard") {
			t.Errorf("revoke: %v", err)
		}
		if _, err := (Provider{}).Mint(ctx, j); err == nil {
			t.Error("mint lifted it")
		}
		if can, _ := srv.Query(`SELECT rolcanlogin FROM pg_roles WHERE rolname='` + role + `'`); can[0] != "f" {
			t.Error("the role may log in")
		}
		// A right password with a barred role is no refusal, so no proof of death.
		if err := (Provider{}).Verify(ctx, j, j.Current); !errors.Is(err, errBarred) || errors.Is(err, rotate.ErrRefused) {
			t.Errorf("verify: %v", err)
		}
	})

	t.Run("a session that fights back", func(t *testing.T) {
		role := fresh(t, "")
		var stop atomic.Bool
		var wg sync.WaitGroup
		const stolen = "the-attackers-own-value"
		started := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				password, first := oldValue, true
				for !stop.Load() {
					c, err := srv.Connect(role, password, "postgres")
					if err != nil {
						password = stolen
						if c, err = srv.Connect(role, password, "postgres"); err != nil {
							time.Sleep(time.Millisecond) // it goes on knocking
							continue
						}
					}
					if first {
						started <- struct{}{}
						first = false
					}
					for !stop.Load() {
						if _, err := c.Exec(ctx, `ALTER ROLE `+role+` PASSWORD '`+stolen+`'`).ReadAll(); err != nil {
							break
						}
					}
					c.Close(ctx)
				}
			})
		}
		for range 4 {
			<-started
		}
		j := job(srv, role)
		j.Emergency = true
		var err error
		for range 20 { // tuple concurrently updated: the runner tries again, too
			if err = (Provider{}).Revoke(ctx, j); err == nil {
				break
			}
		}
		if err != nil {
			t.Error("revoke:", err)
		}
		if _, err := (Provider{}).Mint(ctx, j); err != nil {
			t.Error("mint:", err)
		}
		stop.Store(true)
		wg.Wait()
		for _, p := range []string{oldValue, stolen} {
			if _, err := srv.Connect(role, p, "postgres"); !rotatetest.Refused(err) {
				t.Errorf("%s: %v", p, err)
			}
		}
		if c, err := srv.Connect(role, newValue, "postgres"); err != nil {
			t.Error(err)
		} else {
			c.Close(ctx)
		}
	})

	t.Run("a statement that outlives its connection", func(t *testing.T) {
		role := fresh(t, "")
		// Somebody holds the role's row: ALTER ROLE waits. Then the line is cut.
		holder, err := srv.Connect("postgres", srv.Password, "postgres")
		must(t, err)
		defer holder.Close(ctx)
		_, err = holder.Exec(ctx, `BEGIN; ALTER ROLE `+role+` CONNECTION LIMIT 50`).ReadAll()
		must(t, err)
		var mu sync.Mutex
		var conns []net.Conn
		p := Provider{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			return noCancel{c}, err
		}}
		done := make(chan error, 1)
		go func() { _, err := p.Mint(ctx, job(srv, role, "sslmode", "disable")); done <- err }()
		waiting := func() bool {
			n, err := srv.Query(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'guard 0123456789' AND wait_event_type = 'Lock'`)
			return err == nil && n[0] == "1"
		}
		for !waiting() {
			time.Sleep(5 * time.Millisecond)
		}
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		select {
		case err := <-done:
			t.Fatalf("mint answered while its statement was still waiting at the server: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		_, err = holder.Exec(ctx, `ROLLBACK`).ReadAll()
		must(t, err)
		err = <-done
		t.Logf("mint: %v", err)
		if _, err := srv.Connect(role, newValue, "postgres"); err != nil {
			t.Errorf("the statement was committed, and the new value does not work: %v", err)
		}
	})

	t.Run("errors hold nothing", func(t *testing.T) {
		role := fresh(t, "")
		wrong := job(srv, role)
		wrong.Admin = func(name string) (guard.Secret, guard.Credential, error) {
			return secret("postgres://boss:" + oldValue + "@[broken"), guard.Credential{Name: name, User: "boss"}, nil
		}
		none := job(srv, role, "port", "1")
		badCA := job(srv, role, "ca", "/nonexistent/"+oldValue)
		for name, j := range map[string]rotate.Job{"dsn": wrong, "port": none, "ca": badCA} {
			_, err := Provider{}.Mint(ctx, j)
			if err == nil || strings.Contains(err.Error(), newValue) || strings.Contains(err.Error(), bossWord) || strings.Contains(err.Error(), oldValue) {
				t.Errorf("%s: %v", name, err)
			}
			if errors.Is(err, rotate.ErrRefused) {
				t.Errorf("%s counts as a refusal: %v", name, err)
			}
		}
		if err := (Provider{}).Verify(ctx, none, secret(oldValue)); err == nil || errors.Is(err, rotate.ErrRefused) {
			t.Errorf("nobody listens, and that counts as %v", err)
		}
	})

	t.Run("certificates", func(t *testing.T) {
		role := fresh(t, "")
		other := filepath.Join(t.TempDir(), "other.pem")
		must(t, os.WriteFile(other, nil, 0o600))
		ok := job(srv, role, "sslmode", "verify-full", "ca", srv.CA)
		if err := (Provider{}).Verify(ctx, ok, ok.Current); err != nil {
			t.Error(err)
		}
		unknown := job(srv, role, "sslmode", "verify-full")
		if err := (Provider{}).Verify(ctx, unknown, ok.Current); err == nil || !strings.Contains(err.Error(), "not trusted") {
			t.Errorf("a certificate that nobody knows: %v", err)
		}
	})

	t.Run("a DSN as admin", func(t *testing.T) {
		role := fresh(t, "")
		j := job(srv, role)
		j.Admin = func(name string) (guard.Secret, guard.Credential, error) {
			return secret("postgres://boss:" + bossWord + "@elsewhere.example:1/postgres?sslmode=disable"), guard.Credential{Name: name}, nil
		}
		if _, err := (Provider{}).Mint(ctx, j); err != nil {
			t.Error(err)
		}
		j.Credential.User = "boss"
		if _, err := (Provider{}).Mint(ctx, j); err == nil || !strings.Contains(err.Error(), "leave admin= out") {
			t.Errorf("an admin that rotates itself by another name: %v", err)
		}
	})

	t.Run("the environment has no say", func(t *testing.T) {
		role := fresh(t, "")
		for k, v := range map[string]string{"PGHOST": "203.0.113.1", "PGPORT": "1", "PGUSER": "postgres", "PGDATABASE": "none", "PGSSLMODE": "verify-full", "PGOPTIONS": "-c nonsense=1", "PGPASSWORD": "x", "PGTARGETSESSIONATTRS": "standby", "PGAPPNAME": "x", "PGREQUIREAUTH": "none", "PGCHANNELBINDING": "disable"} {
			t.Setenv(k, v)
		}
		j := job(srv, role)
		if err := (Provider{}).Verify(ctx, j, j.Current); err != nil {
			t.Error(err)
		}
	})
}

// noCancel loses cancel requests on the way.
type noCancel struct{ net.Conn }

func (c noCancel) Write(b []byte) (int, error) {
	if len(b) == 16 && binary.BigEndian.Uint32(b[4:]) == 80877102 {
		return 0, errors.New("lost")
	}
	return c.Conn.Write(b)
}

// A server that asks for no password accepts the old value for ever. guard must
// not take that for anything but what it is.
func TestServerWithoutPasswords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				b := make([]byte, 1024)
				if _, err := c.Read(b); err != nil {
					return
				}
				// AuthenticationOk, ReadyForQuery
				_, _ = c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I'})
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	addr := l.Addr().(*net.TCPAddr)
	srv := &rotatetest.Postgres{Host: "127.0.0.1", Port: addr.Port}
	j := job(srv, "r", "sslmode", "disable")
	err = Provider{}.Verify(context.Background(), j, j.Current)
	if err == nil || errors.Is(err, rotate.ErrRefused) || !strings.Contains(err.Error(), "pg_hba.conf") {
		t.Errorf("got %v", err)
	}
	l.Close()
	wg.Wait()
}

// RFC 7677's example: user, pencil, its salt, 4096 rounds. The keys were checked
// against a PostgreSQL server given the same verifier in TestVerifierAtServer.
func TestVerifier(t *testing.T) {
	salt := []byte{0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81}
	got, err := scram("pencil", salt, 4096)
	must(t, err)
	want := "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := verifier(secret("pässword")); err == nil {
		t.Error("a password that SASLprep would change was taken")
	}
}

func TestChoose(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		s, err := Provider{}.Choose(rotate.Job{})
		must(t, err)
		v := string(s.Reveal())
		if len(v) != 32 || strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" || seen[v] {
			t.Fatalf("%d characters, seen before: %v", len(v), seen[v])
		}
		seen[v] = true
	}
}
