package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"guard"
	"guard/audit"
	"guard/vault"
	"guard/vault/hashivault"
)

// storePort is HashiCorp Vault's and OpenBao's.
const storePort = "8200"

// storeWait bounds one command's talk with a store.
const storeWait = time.Minute

// storeFlags say which store, and how guard logs in there.
type storeFlags struct {
	url, ca, namespace, auth, role, authFile string
}

func (o *storeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.ca, "ca", "", "store: file of the roots that the server is certified by")
	f.StringVar(&o.namespace, "namespace", "", "store: namespace (default: $VAULT_NAMESPACE)")
	f.StringVar(&o.auth, "auth", "token", "store: how guard logs in: token, approle or kubernetes, or METHOD:MOUNT where it is not mounted under its name")
	f.StringVar(&o.role, "role", "", "store: the role's id (approle) or name (kubernetes)")
	f.StringVar(&o.authFile, "auth-file", "", "store: file with the token (default: $VAULT_TOKEN, taken once), the AppRole's secret id, or the path of the pod's token, which is read at each login")
}

// storePlace is what vault://HOST[:PORT]/MOUNT[/PREFIX] says.
type storePlace struct {
	Addr, Mount, Prefix string
}

// parseStore reads a store's URL. vault+http:// is for a server on loopback without TLS.
func parseStore(s string) (storePlace, error) {
	bad := usagef("--store: want vault://HOST[:PORT]/MOUNT[/PREFIX], where MOUNT is a KV engine of version 2")
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return storePlace{}, bad
	}
	scheme := map[string]string{"vault": "https", "vault+http": "http"}[u.Scheme]
	mount, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if scheme == "" || mount == "" || u.Hostname() == "" {
		return storePlace{}, bad
	}
	port := u.Port()
	if port == "" {
		port = storePort
	}
	return storePlace{Addr: scheme + "://" + net.JoinHostPort(u.Hostname(), port), Mount: mount, Prefix: prefix}, nil
}

// storeSettings are kept sealed.
type storeSettings struct {
	URL       string `json:"url"`
	Namespace string `json:"namespace,omitempty"`
	CA        []byte `json:"ca,omitempty"`
	Method    string `json:"method"`
	AuthMount string `json:"auth_mount,omitempty"`
	Role      string `json:"role,omitempty"`
	JWTFile   string `json:"jwt_file,omitempty"`
	Secret    []byte `json:"secret,omitempty"` // the token, or the secret id
}

// storeFile is what lies in GUARD_HOME/store: Box has the settings. The rest is for when
// the vault is not open, and not to be trusted.
type storeFile struct {
	URL  string   `json:"url"`
	Hide []string `json:"hide,omitempty"` // files that lead into the store: no session sees them
	Box  []byte   `json:"box"`
}

func (a *app) storePath() string { return filepath.Join(a.home(), "store") }

func (a *app) readStoreFile() (f storeFile, err error) {
	b, err := os.ReadFile(a.storePath())
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil || len(f.Box) == 0 {
		return f, fmt.Errorf("%s is damaged: set the store up again with guard vault store URL", a.storePath())
	}
	return f, nil
}

// errNoStore is the answer where no store was set up.
var errNoStore = errors.New("no store is set up")

// storeFiles are files that would let an agent into the store.
func (a *app) storeFiles() []string {
	f, err := a.readStoreFile()
	if err != nil {
		return nil
	}
	return append(f.Hide, filepath.Join(a.userHome(), ".vault-token"))
}

func (a *app) storeSettings(v *vault.Vault) (s storeSettings, err error) {
	f, err := a.readStoreFile()
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%w: guard vault store vault://HOST/MOUNT", errNoStore)
	}
	if err != nil {
		return s, err
	}
	b, err := v.Unseal("store", f.Box)
	if err != nil {
		return s, fmt.Errorf("%s was changed or is not of this vault: %w", a.storePath(), err)
	}
	defer clear(b)
	return s, json.Unmarshal(b, &s)
}

// store is the team's store, logged in.
type store struct {
	client *hashivault.Client
	place  storePlace
}

func (s storeSettings) open(ctx context.Context) (*store, error) {
	place, err := parseStore(s.URL)
	if err != nil {
		return nil, err
	}
	auth := hashivault.Auth{Method: s.Method, Mount: s.AuthMount, Role: s.Role, JWTFile: s.JWTFile}
	switch s.Method {
	case "token":
		auth.Token = guard.NewSecret(s.Secret)
	case "approle":
		auth.SecretID = guard.NewSecret(s.Secret)
	}
	c, err := hashivault.New(hashivault.Config{Addr: place.Addr, Namespace: s.Namespace, CA: s.CA, Auth: auth})
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &store{client: c, place: place}, nil
}

// openStore logs in to the store that was set up. errNoStore.
func (a *app) openStore(ctx context.Context, v *vault.Vault) (*store, error) {
	s, err := a.storeSettings(v)
	if err != nil {
		return nil, err
	}
	return s.open(ctx)
}

// close gives a token that came from a login back.
func (s *store) close() {
	ctx, cancel := context.WithTimeout(context.Background(), storeWait)
	defer cancel()
	s.client.Close(ctx) // it ends by itself otherwise
}

// kv is where a source's value is.
func (s *store) kv(from vault.Source) hashivault.KV {
	k := hashivault.KV{Client: s.client, Mount: s.place.Mount, Prefix: s.place.Prefix, Field: from.Field}
	if from.Mount != "" {
		k.Mount, k.Prefix = from.Mount, ""
	}
	return k
}

// where names a source for a person.
func (s storePlace) where(from vault.Source) string {
	_, host, _ := strings.Cut(s.Addr, "://")
	switch {
	case from.Lease != "":
		return "a lease of " + from.Lease + " at " + host
	case from.Mount != "":
		return "vault://" + host + "/" + from.Mount + "/" + from.Path + "#" + from.Field
	case s.Prefix != "":
		return "vault://" + host + "/" + s.Mount + "/" + s.Prefix + "/" + from.Path
	}
	return "vault://" + host + "/" + s.Mount + "/" + from.Path
}

// setStore takes flags and environment, tries them, and keeps them.
func (a *app) setStore(ctx context.Context, v *vault.Vault, o storeFlags) error {
	place, err := parseStore(o.url)
	if err != nil {
		return err
	}
	set := storeSettings{URL: o.url, Namespace: o.namespace, Role: o.role}
	if set.Namespace == "" {
		set.Namespace = a.getenv("VAULT_NAMESPACE")
	}
	set.Method, set.AuthMount, _ = strings.Cut(o.auth, ":")
	if o.ca != "" {
		if set.CA, err = os.ReadFile(o.ca); err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
	}
	var hide []string
	file := o.authFile
	if file != "" {
		if file, err = filepath.Abs(file); err != nil {
			return err
		}
		hide = append(hide, file)
	}
	switch set.Method {
	case "kubernetes":
		set.JWTFile = file
		hide = append(hide, "/var/run/secrets/kubernetes.io/serviceaccount/token")
	case "token", "approle":
		switch {
		case file != "":
			b, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("--auth-file: %w", err)
			}
			set.Secret = oneLine(b)
		case set.Method == "token" && a.getenv("VAULT_TOKEN") != "":
			set.Secret = []byte(a.getenv("VAULT_TOKEN"))
		default:
			what := map[string]string{"token": "token", "approle": "secret id"}[set.Method]
			lines, err := askHidden(fmt.Sprintf("guard: %s for %s (not shown): ", what, place.Addr))
			if err != nil {
				return fmt.Errorf("%w; or --auth-file", err)
			}
			set.Secret = lines[0]
		}
	}
	tried := set
	tried.Secret = slices.Clone(set.Secret)
	st, err := tried.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	who, err := st.client.Whoami(ctx)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, kerr := st.kv(vault.Source{}).Newest(ctx, "default/guard")
	if kerr != nil && !errors.Is(kerr, hashivault.ErrDenied) {
		return fmt.Errorf("store: %w", kerr)
	}
	b, err := json.Marshal(set)
	if err != nil {
		return err
	}
	defer clear(b)
	box, err := v.Seal("store", b)
	if err != nil {
		return err
	}
	out, err := json.Marshal(storeFile{URL: o.url, Hide: hide, Box: box})
	if err != nil {
		return err
	}
	if err := writeFile(a.storePath(), out); err != nil {
		return err
	}
	if err := a.note(v, audit.Record{Type: "vault.store", Host: st.client.Host(), Resource: set.Method}); err != nil {
		return err
	}
	a.say("values of secrets that are set from now on are kept at %s; guard logs in by %s", o.url, set.Method)
	if errors.Is(kerr, hashivault.ErrDenied) {
		a.say("its policy may not read %s of the context default: say what it may in a policy for %s/data/*", o.url, place.Mount)
	}
	if slices.Contains(who.Policies, "root") {
		a.say("that is a root token, which may do anything: one with a policy of its own, that may only what guard does, would be better")
	}
	if set.Method == "token" && who.TTL > 0 {
		a.say("the token ends in %v unless it is used: guard renews it in every session (a periodic token never ends)", who.TTL)
	}
	return nil
}

// vaultStore is guard vault store [URL|none].
func (a *app) vaultStore(ctx context.Context, v *vault.Vault, o storeFlags) error {
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	switch o.url {
	case "":
		set, err := a.storeSettings(v)
		if err != nil {
			return err
		}
		rows := [][]string{{"store", set.URL}, {"namespace", set.Namespace}, {"login", set.Method}, {"role", set.Role}}
		st, err := set.open(ctx)
		if err == nil {
			defer st.close()
			var who hashivault.Whoami
			if who, err = st.client.Whoami(ctx); err == nil {
				rows = append(rows, []string{"policies", strings.Join(who.Policies, ", ")})
			}
		}
		if terr := a.table(rows); terr != nil {
			return terr
		}
		return err
	case "none":
		if _, err := os.Stat(a.storePath()); errors.Is(err, fs.ErrNotExist) {
			return errNoStore
		}
		if left, err := a.openLeases(); err != nil || len(left) > 0 {
			return errors.Join(err, fmt.Errorf("%d sessions have leases of it: end them first, or run guard vault leases to end what is left of those that crashed", len(left)))
		}
		if err := os.Remove(a.storePath()); err != nil {
			return err
		}
		a.say("no store is used any more: credentials whose values are in it can be used again when it is set up again")
		return a.note(v, audit.Record{Type: "vault.store", Resource: "none"})
	}
	return a.setStore(ctx, v, o)
}

// vaultLeases ends what guards left behind that are gone, and says what is still open.
func (a *app) vaultLeases(ctx context.Context, v *vault.Vault) error {
	ids, err := a.openLeases()
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		a.say("no session has a lease")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	st, err := a.openStore(ctx, v)
	if err != nil {
		return err
	}
	defer st.close()
	err = a.endLeft(ctx, v, st, func(session string, e ended) {
		r := audit.Record{Type: "lease.revoke", Session: session, Credential: e.Credential, Context: e.Context, Version: e.Version, Resource: e.Path, Result: "revoked"}
		if e.err != nil {
			r.Result, r.Reason = "failed", e.err.Error()
		} else {
			fmt.Fprintf(a.stdout, "ended a lease of %s (%s) that session %s left behind\n", e.Credential, e.Path, session)
		}
		if nerr := a.note(v, r); nerr != nil {
			a.say("that could not be recorded: %v", nerr)
		}
	})
	if ids, lerr := a.openLeases(); lerr == nil && len(ids) > 0 && err == nil {
		a.say("%s of sessions that run are open", counted(len(ids), "token"))
	}
	return err
}
