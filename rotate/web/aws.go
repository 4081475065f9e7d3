package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// awsKeys are what signs.
type awsKeys struct{ id, secret, token string }

// awsKeysOf reads a value of kind aws: "ID:SECRET[:TOKEN]", AWS's JSON, or a secret
// whose id is the first word of user.
func awsKeysOf(value, user string) (awsKeys, error) {
	value = strings.TrimSpace(value)
	var k awsKeys
	if strings.HasPrefix(value, "{") {
		type pair struct{ AccessKeyId, SecretAccessKey, SessionToken, Token string }
		var v struct {
			pair
			Credentials, AccessKey pair
		}
		if json.Unmarshal([]byte(value), &v) == nil {
			for _, p := range []pair{v.pair, v.Credentials, v.AccessKey} {
				if p.SecretAccessKey != "" {
					if p.SessionToken == "" {
						p.SessionToken = p.Token
					}
					k = awsKeys{p.AccessKeyId, p.SecretAccessKey, p.SessionToken}
					break
				}
			}
		}
	} else if id, rest, ok := strings.Cut(value, ":"); ok {
		secret, token, _ := strings.Cut(rest, ":")
		k = awsKeys{id, secret, token}
	} else {
		k.secret = value
	}
	if k.id == "" {
		k.id, _, _ = strings.Cut(user, ",")
		if strings.Contains(k.id, "=") {
			k.id = ""
		}
	}
	if k.id == "" || k.secret == "" {
		return k, fmt.Errorf("its access key id is not known: set it with --user, or store ID:SECRET: %w", rotate.ErrPermanent)
	}
	return k, nil
}

// bare says that a value is a secret alone, whose id is not in it.
func bare(value string) bool { return !strings.ContainsAny(value, ":{") }

// aws asks an API of AWS's query protocol: a form, signed with Signature Version 4,
// answered with XML. skew is added to this machine's time.
type aws struct {
	asked
	base, service, region, version string
	skew                           *time.Duration
}

func awsMAC(key []byte, s string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(s))
	return m.Sum(nil)
}

// awsError is AWS's own, of which the code is shown, never the message.
type awsError struct {
	code   string
	denied bool // the message says that a policy denies it explicitly
	status int
}

func (e *awsError) Error() string { return fmt.Sprintf("AWS answered %d %s", e.status, e.code) }

// call asks for action as k and reads the answer into v. A clock that is off by more
// than AWS bears is set right once, by the answer's Date.
func (a aws) call(ctx context.Context, k awsKeys, action string, args url.Values, v any) error {
	form := url.Values{"Action": {action}, "Version": {a.version}}
	for key, value := range args {
		form[key] = value
	}
	for try := 0; ; try++ {
		r, err := a.do(ctx, a.sign(k, form, time.Now().Add(*a.skew)))
		if err != nil {
			return err
		}
		if r.ok() {
			if v == nil {
				return nil
			}
			if err := xml.Unmarshal(r.body, v); err != nil {
				return fmt.Errorf("%s: AWS's answer is not the XML that its documentation says", action)
			}
			return nil
		}
		e := &awsError{status: r.status}
		var said struct {
			Error struct{ Code, Message string }
		}
		if xml.Unmarshal(r.body, &said) == nil && said.Error.Code != "" && len(said.Error.Code) < 64 && plainWord(said.Error.Code) {
			e.code, e.denied = said.Error.Code, strings.Contains(said.Error.Message, "explicit deny")
		}
		theirs, bad := http.ParseTime(r.header.Get("Date"))
		if off := time.Until(theirs); try == 0 && bad == nil && slices.Contains([]string{"RequestTimeTooSkewed", "SignatureDoesNotMatch", "RequestExpired"}, e.code) && (off-*a.skew).Abs() > 4*time.Minute {
			*a.skew = off
			continue
		}
		err = fmt.Errorf("%s: %w", action, e)
		switch {
		case r.status == http.StatusTooManyRequests, r.status == http.StatusServiceUnavailable, e.code == "Throttling", e.code == "ThrottlingException", e.code == "ConcurrentModification", e.code == "EntityTemporarilyUnmodifiable":
			return &rotate.RetryAfter{After: r.after(), Err: err}
		case r.status >= 400 && r.status < 500:
			return fmt.Errorf("%w: %w", err, rotate.ErrPermanent)
		}
		return err
	}
}

func plainWord(s string) bool {
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.") == ""
}

func (a aws) sign(k awsKeys, form url.Values, now time.Time) request {
	u, _ := url.Parse(a.base)
	date := now.UTC().Format("20060102T150405Z")
	sum := sha256.Sum256([]byte(form.Encode()))
	h := map[string]string{"X-Amz-Date": date}
	names, lines := "host;x-amz-date", "host:"+u.Host+"\nx-amz-date:"+date+"\n"
	if k.token != "" {
		h["X-Amz-Security-Token"] = k.token
		names, lines = names+";x-amz-security-token", lines+"x-amz-security-token:"+k.token+"\n"
	}
	whole := sha256.Sum256([]byte("POST\n/\n\n" + lines + "\n" + names + "\n" + hex.EncodeToString(sum[:])))
	scope := date[:8] + "/" + a.region + "/" + a.service + "/aws4_request"
	key := []byte("AWS4" + k.secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = awsMAC(key, part)
	}
	sig := hex.EncodeToString(awsMAC(key, "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hex.EncodeToString(whole[:])))
	h["Authorization"] = "AWS4-HMAC-SHA256 Credential=" + k.id + "/" + scope + ", SignedHeaders=" + names + ", Signature=" + sig
	return request{method: http.MethodPost, url: a.base + "/", header: h, form: form}
}

// tried is what the error of a call that needs no permission says of the keys.
func (e *awsError) tried(err error) error {
	switch e.code {
	case "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "UnrecognizedClientException":
		return fmt.Errorf("try the value: %w (%s)", rotate.ErrRefused, e.code)
	case "AccessDenied":
		return nil
	}
	return err
}

// awsAPIs are IAM and STS as one rotation asks them.
type awsAPIs struct{ iam, sts aws }

func awsAt(c *Client, j rotate.Job) (awsAPIs, error) {
	a := asked{c, j}
	region := j.Options["region"]
	if region == "" {
		region = "us-east-1"
	}
	if strings.Trim(region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return awsAPIs{}, fmt.Errorf("region of %s's rotate option is none: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	iam, err := a.base("url", "https://iam.amazonaws.com")
	if err != nil {
		return awsAPIs{}, err
	}
	sts, err := a.base("sts", "https://sts."+region+".amazonaws.com")
	skew := new(time.Duration)
	return awsAPIs{aws{a, iam, "iam", "us-east-1", "2010-05-08", skew}, aws{a, sts, "sts", region, "2011-06-15", skew}}, err
}

// admin are the keys that option admin names.
func (a awsAPIs) admin() (awsKeys, error) {
	v, c, err := a.iam.admin("admin", a.iam.base)
	if err != nil {
		return awsKeys{}, err
	}
	k, err := awsKeysOf(v, c.User)
	if err != nil {
		err = fmt.Errorf("admin=%s: %w", c.Name, err)
	}
	return k, err
}

// identity tries keys with a call that needs no permission, and that none can deny.
func (a awsAPIs) identity(ctx context.Context, k awsKeys) error {
	err := a.sts.call(ctx, k, "GetCallerIdentity", nil, nil)
	var e *awsError
	if errors.As(err, &e) {
		return e.tried(err)
	}
	return err
}

// AWSIAM makes access keys of IAM users: docs.aws.amazon.com/IAM/latest/APIReference.
type AWSIAM struct {
	Client Client
}

// About describes it.
func (AWSIAM) About() rotate.About {
	return rotate.About{
		Name: "aws-iam",
		Options: []rotate.Option{
			adminOption("credential of kind aws that may manage the user's access keys; another user's, since a key that leaked is ended before there is a new one"),
			{Key: "user", About: "name of the IAM user", Must: true},
			{Key: "region", About: "of STS, where keys are tried; default us-east-1"},
			urlOption("https://iam.amazonaws.com", ""), {Key: "sts", About: "address of STS; default that of the region"}, caOption(),
		},
		Privileges: "of the admin, on that user: iam:CreateAccessKey, iam:ListAccessKeys, iam:UpdateAccessKey, iam:DeleteAccessKey, iam:GetAccessKeyLastUsed. The key itself needs none: sts:GetCallerIdentity is open to all",
		Sessions:   "sessions that were made with the key (GetSessionToken, AssumeRole) live on until they expire: aws-sts ends those of a role",
		Limits:     "two access keys a user: an inactive one is deleted to make room; two active ones, of which one is not guard's, stop the rotation. AWS takes seconds to know a new key, and as long to forget an old one",
		Calls:      []string{"IAM ListAccessKeys, GetAccessKeyLastUsed, CreateAccessKey, UpdateAccessKey (Status=Inactive), DeleteAccessKey", "STS GetCallerIdentity"},
	}
}

type awsKey struct {
	AccessKeyId, SecretAccessKey, Status string
}

// keys are the user's access keys.
func (p AWSIAM) keys(ctx context.Context, a awsAPIs, admin awsKeys) ([]awsKey, error) {
	var all []awsKey
	args := url.Values{"UserName": {a.iam.job.Options["user"]}}
	for range 100 {
		var got struct {
			Result struct {
				Members     []awsKey `xml:"AccessKeyMetadata>member"`
				IsTruncated bool
				Marker      string
			} `xml:"ListAccessKeysResult"`
		}
		if err := a.iam.call(ctx, admin, "ListAccessKeys", args, &got); err != nil {
			return nil, err
		}
		all = append(all, got.Result.Members...)
		if !got.Result.IsTruncated || got.Result.Marker == "" {
			return all, nil
		}
		args.Set("Marker", got.Result.Marker)
	}
	return nil, fmt.Errorf("ListAccessKeys does not end: %w", rotate.ErrPermanent)
}

func (p AWSIAM) change(ctx context.Context, a awsAPIs, admin awsKeys, action, id string, more ...string) error {
	args := url.Values{"UserName": {a.iam.job.Options["user"]}, "AccessKeyId": {id}}
	for i := 0; i+1 < len(more); i += 2 {
		args.Set(more[i], more[i+1])
	}
	err := a.iam.call(ctx, admin, action, args, nil)
	var e *awsError
	if errors.As(err, &e) && e.code == "NoSuchEntity" {
		return nil
	}
	return err
}

// never says that nobody has used a key.
func (p AWSIAM) never(ctx context.Context, a awsAPIs, admin awsKeys, id string) (bool, error) {
	var got struct {
		Last struct{ LastUsedDate string } `xml:"GetAccessKeyLastUsedResult>AccessKeyLastUsed"`
	}
	err := a.iam.call(ctx, admin, "GetAccessKeyLastUsed", url.Values{"AccessKeyId": {id}}, &got)
	return err == nil && got.Last.LastUsedDate == "", err
}

// idOfCurrent is the id of the old value. A bare secret goes with the credential's user,
// which may be a later key's by now: it is tried with each of the user's keys. "": it is
// none of them.
func (p AWSIAM) idOfCurrent(ctx context.Context, a awsAPIs, all []awsKey) (string, error) {
	j := a.iam.job
	v, err := a.sts.own(a.sts.base, j.Current)
	if err != nil {
		return "", err
	}
	k, err := awsKeysOf(v, j.Credential.User)
	if err != nil || !bare(v) {
		return k.id, err
	}
	ids := []string{k.id}
	for _, x := range all {
		ids = append(ids, x.AccessKeyId)
	}
	for _, id := range ids {
		if err := a.identity(ctx, awsKeys{id: id, secret: k.secret}); err == nil {
			return id, nil
		} else if !errors.Is(err, rotate.ErrRefused) {
			return "", err
		}
	}
	if k.id == candidateID(j) || j.Candidate.Len() > 0 && bare(text(j.Candidate)) {
		return "", nil
	}
	return k.id, nil
}

// Check lists the user's keys as the admin, and tries the present one.
func (p AWSIAM) Check(ctx context.Context, j rotate.Job) error {
	a, err := awsAt(&p.Client, j)
	if err != nil {
		return err
	}
	admin, err := a.admin()
	if err != nil {
		return err
	}
	all, err := p.keys(ctx, a, admin)
	if err != nil {
		return err
	}
	k, err := awsKeysOf(text(j.Current), j.Credential.User)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(x awsKey) bool { return x.AccessKeyId == k.id }) {
		return fmt.Errorf("the present key is none of user %s's: %w", j.Options["user"], rotate.ErrPermanent)
	}
	if k.id == admin.id {
		return fmt.Errorf("admin= is the key itself: a key that leaked could not be ended before there is a new one: %w", rotate.ErrPermanent)
	}
	return p.Verify(ctx, j, j.Current)
}

// Mint makes a key. Access keys have no names: which there were before is remembered,
// and one that came since, and that nobody ever used, is an earlier try's.
func (p AWSIAM) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	a, err := awsAt(&p.Client, j)
	if err != nil {
		return guard.Secret{}, err
	}
	admin, err := a.admin()
	if err != nil {
		return guard.Secret{}, err
	}
	all, err := p.keys(ctx, a, admin)
	if err != nil {
		return guard.Secret{}, err
	}
	before, again := strings.CutPrefix(j.Note, "keys:")
	if !again {
		for _, x := range all {
			before += x.AccessKeyId + " "
		}
		if err := j.Remember("keys:" + before); err != nil {
			return guard.Secret{}, err
		}
	}
	old, err := awsKeysOf(text(j.Current), j.Credential.User)
	if err != nil {
		return guard.Secret{}, rotate.NotMade(err)
	}
	if again {
		for _, x := range all {
			if slices.Contains(strings.Fields(before), x.AccessKeyId) {
				continue
			}
			never, err := p.never(ctx, a, admin, x.AccessKeyId)
			if err != nil {
				return guard.Secret{}, err
			}
			if never || x.AccessKeyId == candidateID(j) {
				if err := p.change(ctx, a, admin, "DeleteAccessKey", x.AccessKeyId); err != nil {
					return guard.Secret{}, fmt.Errorf("delete what an earlier try made: %w", err)
				}
			}
		}
		if all, err = p.keys(ctx, a, admin); err != nil {
			return guard.Secret{}, err
		}
	}
	if len(all) >= 2 {
		i := slices.IndexFunc(all, func(x awsKey) bool { return x.Status == "Inactive" && (x.AccessKeyId != old.id || j.Emergency) })
		if i < 0 {
			return guard.Secret{}, rotate.NotMade(fmt.Errorf("user %s has two access keys and both are active: deactivate the one that is not in use: %w", j.Options["user"], rotate.ErrPermanent))
		}
		if err := p.change(ctx, a, admin, "DeleteAccessKey", all[i].AccessKeyId); err != nil {
			return guard.Secret{}, fmt.Errorf("make room for a new key: %w", err)
		}
	}
	var got struct {
		Key awsKey `xml:"CreateAccessKeyResult>AccessKey"`
	}
	if err := a.iam.call(ctx, admin, "CreateAccessKey", url.Values{"UserName": {j.Options["user"]}}, &got); err != nil {
		var e *awsError
		if errors.As(err, &e) && errors.Is(err, rotate.ErrPermanent) {
			return guard.Secret{}, rotate.NotMade(err)
		}
		return guard.Secret{}, err
	}
	if got.Key.AccessKeyId == "" || got.Key.SecretAccessKey == "" {
		return guard.Secret{}, errors.New("CreateAccessKey: AWS's answer holds no key")
	}
	user := got.Key.AccessKeyId
	if _, rest, ok := strings.Cut(j.Credential.User, ","); ok {
		user += "," + rest // what the broker is told besides
	}
	value := got.Key.AccessKeyId + ":" + got.Key.SecretAccessKey
	if strings.HasPrefix(strings.TrimSpace(text(j.Current)), "{") {
		b, err := json.Marshal(map[string]string{"AccessKeyId": got.Key.AccessKeyId, "SecretAccessKey": got.Key.SecretAccessKey})
		if err != nil {
			return guard.Secret{}, err
		}
		value = string(b)
	}
	return made{value: value, user: user}.keep(j)
}

// candidateID is the id of a key that was sealed and has to be made again.
func candidateID(j rotate.Job) string {
	if j.Candidate.Len() == 0 {
		return ""
	}
	k, err := awsKeysOf(text(j.Candidate), "")
	if err != nil {
		return ""
	}
	return k.id
}

// Verify asks STS who the keys are.
func (p AWSIAM) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	a, err := awsAt(&p.Client, j)
	if err != nil {
		return err
	}
	v, err := a.sts.own(a.sts.base, value)
	if err != nil {
		return err
	}
	k, err := awsKeysOf(v, j.Credential.User)
	if err != nil {
		return err
	}
	err = a.identity(ctx, k)
	if !bare(v) || !errors.Is(err, rotate.ErrRefused) || j.Step != rotate.StepDead {
		return err
	}
	// The secret of an earlier key does not go with the user of today: it is dead if
	// none of the user's keys takes it.
	admin, failed := a.admin()
	if failed != nil {
		return failed
	}
	all, failed := p.keys(ctx, a, admin)
	if failed != nil {
		return failed
	}
	for _, x := range all {
		if x.AccessKeyId == k.id {
			continue
		}
		if one := a.identity(ctx, awsKeys{id: x.AccessKeyId, secret: k.secret}); !errors.Is(one, rotate.ErrRefused) {
			return one
		}
	}
	return err
}

// Revoke deactivates the old key, which works at once where deletion would wait, and
// deletes it.
func (p AWSIAM) Revoke(ctx context.Context, j rotate.Job) error {
	a, err := awsAt(&p.Client, j)
	if err != nil {
		return err
	}
	admin, err := a.admin()
	if err != nil {
		return err
	}
	all, err := p.keys(ctx, a, admin)
	if err != nil {
		return err
	}
	id, err := p.idOfCurrent(ctx, a, all)
	if err != nil || id == "" {
		return err
	}
	if id == candidateID(j) {
		return fmt.Errorf("the old key has the new one's id: %w", rotate.ErrPermanent)
	}
	if err := p.change(ctx, a, admin, "UpdateAccessKey", id, "Status", "Inactive"); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	return p.change(ctx, a, admin, "DeleteAccessKey", id)
}
