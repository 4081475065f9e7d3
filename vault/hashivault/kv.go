package hashivault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"guard"
	"guard/vault"
)

// Fields of what guard writes: text, or what is no UTF-8.
const (
	fieldValue  = "value"
	fieldBase64 = "value_base64"
)

// KV is a KV version 2 engine as a vault.Store.
type KV struct {
	Client *Client
	Mount  string // of the engine
	Prefix string // of every name in it; "": none
	// Field is read instead of the ones that guard writes. Put is refused then: it would
	// drop the other fields.
	Field string
}

// kvVersion is what the engine says of one version.
type kvVersion struct {
	Version   int    `json:"version"`
	Deleted   string `json:"deletion_time"`
	Destroyed bool   `json:"destroyed"`
}

func (k KV) path(op, name string) (string, error) {
	p := strings.Trim(k.Mount, "/") + "/" + op
	if k.Prefix != "" {
		p += "/" + strings.Trim(k.Prefix, "/")
	}
	p += "/" + name
	return p, checkPath(p)
}

// read asks for a version. The metadata is also there where the value is gone.
func (k KV) read(ctx context.Context, name string, version int) (map[string]any, kvVersion, error) {
	p, err := k.path("data", name)
	if err != nil {
		return nil, kvVersion{}, err
	}
	q := url.Values{}
	if version > 0 {
		q.Set("version", strconv.Itoa(version))
	}
	r, code, err := k.Client.authed(ctx, "GET", p, q, nil)
	if err != nil && (code != 404 || r == nil) {
		return nil, kvVersion{}, err
	}
	var d struct {
		Data     map[string]any `json:"data"`
		Metadata *kvVersion     `json:"metadata"`
	}
	jerr := json.Unmarshal(r.Data, &d)
	switch {
	case code == 404 && (jerr != nil || d.Metadata == nil):
		return nil, kvVersion{}, fmt.Errorf("%s in %s at %s: %w", name, k.Mount, k.Client.Host(), vault.ErrNotFound)
	case jerr != nil || d.Metadata == nil || d.Metadata.Version < 1:
		return nil, kvVersion{}, fmt.Errorf("%s: %w: is %s a KV engine of version 2?", p, ErrAnswer, k.Mount)
	case version > 0 && d.Metadata.Version != version:
		return nil, kvVersion{}, fmt.Errorf("%s: version %d was asked for: %w", p, version, ErrAnswer)
	case d.Metadata.Destroyed:
		return nil, *d.Metadata, fmt.Errorf("version %d of %s in %s at %s: %w", d.Metadata.Version, name, k.Mount, k.Client.Host(), vault.ErrDestroyed)
	case code == 404 || d.Metadata.Deleted != "" && d.Data == nil:
		return nil, *d.Metadata, fmt.Errorf("version %d of %s in %s at %s: %w: vault kv undelete brings it back", d.Metadata.Version, name, k.Mount, k.Client.Host(), vault.ErrDeleted)
	}
	return d.Data, *d.Metadata, nil
}

// Get is vault.Store's.
func (k KV) Get(ctx context.Context, name string, version int) (guard.Secret, int, error) {
	d, v, err := k.read(ctx, name, version)
	if err != nil {
		return guard.Secret{}, 0, err
	}
	if k.Field != "" {
		s, ok := d[k.Field].(string)
		if !ok {
			return guard.Secret{}, 0, fmt.Errorf("version %d of %s in %s has no text in its field %s: %w", v.Version, name, k.Mount, k.Field, vault.ErrNotFound)
		}
		return guard.NewSecret([]byte(s)), v.Version, nil
	}
	if s, ok := d[fieldValue].(string); ok {
		return guard.NewSecret([]byte(s)), v.Version, nil
	}
	s, ok := d[fieldBase64].(string)
	b, err := base64.StdEncoding.DecodeString(s)
	if !ok || err != nil {
		return guard.Secret{}, 0, fmt.Errorf("version %d of %s in %s has no field %s: name the field: %w", v.Version, name, k.Mount, fieldValue, vault.ErrNotFound)
	}
	return guard.NewSecret(b), v.Version, nil
}

// Put is vault.Store's: the engine compares and sets.
func (k KV) Put(ctx context.Context, name string, after int, s guard.Secret) (int, error) {
	if k.Field != "" {
		return 0, fmt.Errorf("%s in %s has other fields beside %s, and is changed where it was made", name, k.Mount, k.Field)
	}
	p, err := k.path("data", name)
	if err != nil {
		return 0, err
	}
	b := s.Reveal()
	data := map[string]string{}
	if utf8.Valid(b) {
		data[fieldValue] = string(b)
	} else {
		data[fieldBase64] = base64.StdEncoding.EncodeToString(b)
	}
	r, code, err := k.Client.authed(ctx, "POST", p, nil, map[string]any{"options": map[string]int{"cas": after}, "data": data})
	if code == 400 && r != nil && strings.Contains(strings.Join(r.Errors, " "), "check-and-set") {
		return 0, fmt.Errorf("%s in %s at %s: %w", name, k.Mount, k.Client.Host(), vault.ErrConflict)
	}
	if err != nil {
		return 0, err
	}
	var d kvVersion
	if err := json.Unmarshal(r.Data, &d); err != nil || d.Version <= after {
		return 0, fmt.Errorf("%s: %w: is %s a KV engine of version 2?", p, ErrAnswer, k.Mount)
	}
	return d.Version, nil
}

// Newest is the number of the newest version, in whatever state; 0: there never was one.
func (k KV) Newest(ctx context.Context, name string) (int, error) {
	_, v, err := k.read(ctx, name, 0)
	if err != nil && v.Version == 0 {
		return 0, notFoundIsNone(err)
	}
	return v.Version, nil
}

// Destroy is vault.Store's.
func (k KV) Destroy(ctx context.Context, name string, version int) error {
	newest, err := k.Newest(ctx, name)
	if err != nil {
		return err
	}
	if version < 1 || version > newest {
		return fmt.Errorf("version %d of %s in %s: %w", version, name, k.Mount, vault.ErrNotFound)
	}
	p, err := k.path("destroy", name)
	if err != nil {
		return err
	}
	_, _, err = k.Client.authed(ctx, "POST", p, nil, map[string][]int{"versions": {version}})
	return err
}
