package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	deviceInterval = 5 * time.Second // RFC 8628, section 3.5
	deviceSlower   = 5 * time.Second
	deviceMaxWait  = 2 * time.Minute
)

// deviceFlow logs in by a code that is entered elsewhere (RFC 8628).
func (l *login) deviceFlow(ctx context.Context) (tokens, error) {
	if l.meta.Device == "" {
		return tokens{}, fmt.Errorf("%s has no login by a code: leave --device out", l.svc.Title)
	}
	host := hostOfURL(l.meta.Device)
	status, body, err := l.post(ctx, l.meta.Device, url.Values{"scope": {strings.Join(l.svc.Scopes, " ")}})
	if err != nil {
		return tokens{}, fmt.Errorf("ask %s for a code: %w", visible(host), err)
	}
	var d struct {
		Device   string  `json:"device_code"`
		User     string  `json:"user_code"`
		At       string  `json:"verification_uri"`
		AtOld    string  `json:"verification_url"` // Google's, from before the RFC
		Whole    string  `json:"verification_uri_complete"`
		Expires  float64 `json:"expires_in"`
		Interval float64 `json:"interval"`
		Error    string  `json:"error"`
		Text     string  `json:"error_description"`
	}
	bad := json.Unmarshal(body, &d) != nil
	if bad || status != http.StatusOK || d.Error != "" {
		return tokens{}, &oauthError{host: host, code: d.Error, text: d.Text, status: status}
	}
	d.At = cmpOr(d.At, d.AtOld)
	if d.Device == "" || d.User == "" || d.At == "" {
		return tokens{}, fmt.Errorf("%s answered without a code or without an address to enter it at", visible(host))
	}
	if checkEndpoint(d.At) != nil || d.Whole != "" && checkEndpoint(d.Whole) != nil {
		return tokens{}, fmt.Errorf("%s sends you to an address that is not https: %s", visible(host), visible(d.At))
	}
	if d.Expires > 0 && d.Expires < 1e6 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(d.Expires*float64(time.Second)), errCodeEnded)
		defer cancel()
	}
	l.app.say("open %s and enter the code %s", visible(d.At), visible(d.User))
	if d.Whole != "" {
		l.app.say("or open %s, and see that it shows the same code", visible(d.Whole))
	}
	every := deviceInterval
	if d.Interval > 0 && d.Interval < 3600 {
		every = time.Duration(d.Interval * float64(time.Second))
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.Device}}
	for {
		if err := l.wait(ctx, every); err != nil {
			if errors.Is(context.Cause(ctx), errCodeEnded) {
				return tokens{}, errCodeEnded
			}
			return tokens{}, err
		}
		t, err := l.exchange(ctx, cloneForm(form), "")
		var refused *oauthError
		var network net.Error
		switch {
		case err == nil:
			return t, nil
		case errors.As(err, &refused) && refused.code == "authorization_pending":
		case errors.As(err, &refused) && refused.code == "slow_down":
			every += deviceSlower
		case errors.As(err, &refused) && refused.code == "access_denied":
			return tokens{}, fmt.Errorf("the login was refused on the other device: nothing was stored: %w", err)
		case errors.As(err, &refused) && refused.code == "expired_token":
			return tokens{}, fmt.Errorf("%w: %w", errCodeEnded, err)
		case errors.Is(context.Cause(ctx), errCodeEnded):
			return tokens{}, errCodeEnded
		case ctx.Err() != nil:
			return tokens{}, ctx.Err()
		case errors.As(err, &network) && network.Timeout():
			every = min(2*every, deviceMaxWait) // RFC 8628, section 3.5
		default:
			return tokens{}, err
		}
	}
}

var errCodeEnded = errors.New("the code was not entered in time: run guard login again for a new one")

func cloneForm(f url.Values) url.Values {
	out := url.Values{}
	for k, v := range f {
		out[k] = slices.Clone(v)
	}
	return out
}
