package endpoints

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

// Options of NewService.
type Options struct {
	Store   Store
	History History
	Ring    *keyring.Ring
	Checks  Checks
	// Log is where replays find positions.
	Log Log
	// Most is how many endpoints an organisation may have that are not archived.
	Most int
	// Changed is called after each change; it must not block.
	Changed func()
}

// Service is what callers may do. Safe for concurrent use.
type Service struct{ o Options }

// NewService makes a service.
func NewService(o Options) *Service { return &Service{o: o} }

// Draft is an endpoint to be.
type Draft struct {
	Settings
	Auth Auth
	// ClientKey is PEM, Secret a whsec_… that the caller brings; empty for none.
	ClientKey, Secret string
	Disabled          bool
}

// Create validates and stores a new endpoint, and gives its secret.
func (s *Service) Create(ctx context.Context, call Call, d Draft) (Endpoint, string, error) {
	if d.Format == "" {
		d.Format = delivery.Standard
	}
	f := &faults{}
	f.check(&d.Settings, &s.o.Checks)
	f.auth(d.Auth)
	f.certificate(d.ClientCertificate, d.ClientKey)
	s.secret(f, d.Secret)
	if err := f.result(); err != nil {
		return Endpoint{}, "", err
	}
	id, err := s.o.Store.NewID(ctx)
	if err != nil {
		return Endpoint{}, "", err
	}
	v := vault{s.o.Ring, call.OrgID, id}
	d.AuthKind = kindOf(d.Auth)
	c := Change{Next: Endpoint{ID: id, Settings: d.Settings, Enabled: !d.Disabled, Version: 1}, Actions: phases(event.Create),
		Auth: v.authorization(d.Auth), ClientKey: v.clientKey(d.ClientKey)}
	if d.Disabled {
		c.Next.DisabledReason = delivery.ByHand
	}
	secret, text := v.symmetric(d.Secret)
	c.Secrets = append(c.Secrets, secret)
	if d.Asymmetric {
		c.Secrets = append(c.Secrets, v.asymmetric())
	}
	e, err := s.o.Store.Create(ctx, call, c, s.o.Most)
	if err != nil {
		return Endpoint{}, "", err
	}
	s.o.Changed()
	return e, text, nil
}

func kindOf(a Auth) string {
	if a.Kind == "" {
		return authNone
	}
	return a.Kind
}

func (s *Service) secret(f *faults, text string) {
	if text == "" {
		return
	}
	if !strings.HasPrefix(text, signing.SymmetricPrefix) || s.o.Checks.Secret(text) != nil { // a v1a key is never brought
		f.add("secret", "INVALID_SECRET", "whsec_ and the base64 of 24 to 64 bytes")
	}
}

// Get gives one endpoint, also an archived one.
func (s *Service) Get(ctx context.Context, orgID, id int64) (Endpoint, error) {
	f := &faults{}
	if f.id("id", id); f.err != nil {
		return Endpoint{}, f.err
	}
	return s.o.Store.Get(ctx, orgID, id)
}

// List gives one page, newest first, how many match over all pages, and where the next goes on; nil at the end.
func (s *Service) List(ctx context.Context, orgID int64, q Query, limit *int32, cursor string) (page []Endpoint, total int64, next *string, err error) {
	f := &faults{}
	q.Limit = limitOf(f, limit)
	if cursor != "" {
		if q.Before, err = strconv.ParseInt(cursor, 10, 64); err != nil || q.Before < 1 {
			f.add("cursor", "INVALID_CURSOR", "a next_cursor of an answer")
		}
	}
	if err := f.result(); err != nil {
		return nil, 0, nil, err
	}
	q.Limit++ // one too many tells that there are more
	page, total, err = s.o.Store.List(ctx, orgID, q)
	if n := q.Limit - 1; err == nil && len(page) > n {
		page = page[:n]
		at := strconv.FormatInt(page[n-1].ID, 10)
		next = &at
	}
	return page, total, next, err
}

// Update says what to change of an endpoint.
type Update struct {
	ID int64
	// Mask names the fields to change.
	Mask []string
	Settings
	Auth      Auth
	ClientKey string
	// Version is the one that the change was made from; nil means any.
	Version *int64
}

// maskFields are the fields that an update may name.
func maskFields() []string {
	return []string{"url", "description", "event_types", "aggregate_types", "aggregate_ids", "filter", "transform", "format", "headers",
		"rate_limit", "ordered", "auth", "client_certificate", "client_key", "asymmetric"}
}

// Update changes what the mask names. An update that changes nothing gives the endpoint as it is and fires no event.
func (s *Service) Update(ctx context.Context, call Call, u Update) (Endpoint, error) {
	f := &faults{in: u.has}
	for _, field := range u.Mask {
		if !slices.Contains(maskFields(), field) {
			f.add("update_mask", "UNKNOWN_FIELD", "%q cannot be changed", clip(field))
		}
	}
	f.id("id", u.ID)
	f.version(u.Version)
	f.check(&u.Settings, &s.o.Checks)
	if u.has("auth") {
		f.auth(u.Auth)
	}
	if u.has("client_certificate") || u.has("client_key") { // one without the other belongs to nothing
		f.certificate(u.ClientCertificate, u.ClientKey)
	}
	if err := f.result(); err != nil {
		return Endpoint{}, err
	}
	return s.change(ctx, call, u.ID, u.decide(vault{s.o.Ring, call.OrgID, u.ID}))
}

func (u *Update) has(field string) bool { return slices.Contains(u.Mask, field) }

// decide is the pure part of an update.
func (u *Update) decide(v vault) Decide {
	return func(c Current) (*Change, error) {
		if err := mutable(&c, u.Version); err != nil {
			return nil, err
		}
		after := c.Settings
		u.apply(&after)
		diff := difference(&c.Settings, &after)
		if u.has("auth") && u.Auth.Kind != "" && u.Auth.Kind != authNone { // whether it is another nobody can tell
			diff.put("auth", c.AuthKind, after.AuthKind)
		}
		if u.has("client_key") && u.ClientKey != "" {
			diff.put("client_key", hiddenIf(c.HasClientKey), hidden)
		}
		if len(diff) == 0 {
			return nil, nil
		}
		ch := c.next(diff, phases(event.Update)...)
		ch.Next.Settings = after
		if u.has("auth") {
			ch.Auth = v.authorization(u.Auth)
		}
		if u.has("client_certificate") || u.has("client_key") {
			ch.ClientKey = v.clientKey(u.ClientKey)
		}
		switch {
		case after.Asymmetric && !c.Asymmetric:
			ch.Secrets = append(ch.Secrets, v.asymmetric())
		case c.Asymmetric && !after.Asymmetric:
			ch.DropKind = asymmetric
		}
		return ch, nil
	}
}

func hiddenIf(there bool) any {
	if there {
		return hidden
	}
	return nil
}

// apply sets the fields that the mask names.
func (u *Update) apply(s *Settings) {
	to, from := s, &u.Settings
	for field, set := range map[string]func(){
		"url": func() { to.URL = from.URL }, "description": func() { to.Description = from.Description },
		"event_types": func() { to.EventTypes = from.EventTypes }, "aggregate_types": func() { to.AggregateTypes = from.AggregateTypes },
		"aggregate_ids": func() { to.AggregateIDs = from.AggregateIDs }, "filter": func() { to.Filter = from.Filter },
		"transform": func() { to.Transform = from.Transform }, "format": func() { to.Format = from.Format },
		"headers": func() { to.Headers = from.Headers }, "rate_limit": func() { to.RateLimit = from.RateLimit },
		"ordered": func() { to.Ordered = from.Ordered }, "auth": func() { to.AuthKind = kindOf(u.Auth) },
		"client_certificate": func() { to.ClientCertificate = from.ClientCertificate }, "asymmetric": func() { to.Asymmetric = from.Asymmetric },
	} {
		if u.has(field) {
			set()
		}
	}
}

// Archive ends an endpoint, until it is restored. What is archived already stays as it is.
func (s *Service) Archive(ctx context.Context, call Call, id int64, version *int64) (Endpoint, error) {
	return s.move(ctx, call, id, version, archive)
}

// Restore takes an endpoint out of the archive: it gets what happens from then on. What is not archived stays as it is.
func (s *Service) Restore(ctx context.Context, call Call, id int64, version *int64) (Endpoint, error) {
	f := &faults{}
	f.id("id", id)
	f.version(version)
	if err := f.result(); err != nil {
		return Endpoint{}, err
	}
	return done(s, func() (Endpoint, error) { return s.o.Store.Restore(ctx, call, id, s.o.Most, restore(version)) })
}

// Enable takes an endpoint up again; Disable ends sending until then.
func (s *Service) Enable(ctx context.Context, call Call, id int64, version *int64) (Endpoint, error) {
	return s.move(ctx, call, id, version, enable)
}

// Disable ends sending; what waits is given up.
func (s *Service) Disable(ctx context.Context, call Call, id int64, version *int64) (Endpoint, error) {
	return s.move(ctx, call, id, version, disable)
}

func (s *Service) move(ctx context.Context, call Call, id int64, version *int64, decide func(*int64) Decide) (Endpoint, error) {
	f := &faults{}
	f.id("id", id)
	f.version(version)
	if err := f.result(); err != nil {
		return Endpoint{}, err
	}
	return s.change(ctx, call, id, decide(version))
}

func (s *Service) change(ctx context.Context, call Call, id int64, decide Decide) (Endpoint, error) {
	e, _, err := s.o.Store.Change(ctx, call, id, decide)
	if err == nil {
		s.o.Changed()
	}
	return e, err
}

// defaultOverlap is how long older secrets still sign beside a new one.
const defaultOverlap = 24 * time.Hour

// Rotate makes a new secret, and a new v1a key where there is one. Those before it sign for overlap seconds more.
func (s *Service) Rotate(ctx context.Context, call Call, id int64, overlap *int64, secret string) (Endpoint, string, error) {
	f := &faults{}
	f.id("id", id)
	if overlap != nil && (*overlap < 0 || *overlap > maxOverlap) {
		f.add("overlap", "OUT_OF_RANGE", "0 to %d seconds", maxOverlap)
	}
	s.secret(f, secret)
	if err := f.result(); err != nil {
		return Endpoint{}, "", err
	}
	keep := defaultOverlap
	if overlap != nil {
		keep = time.Duration(*overlap) * time.Second
	}
	v := vault{s.o.Ring, call.OrgID, id}
	made, text := v.symmetric(secret)
	e, err := s.change(ctx, call, id, func(c Current) (*Change, error) {
		if err := mutable(&c, nil); err != nil {
			return nil, err
		}
		diff := changes{}
		diff.put("secret", hidden, hidden)
		ch := c.next(diff, append(phases(event.Update), delivery.ActionSecretRotated)...)
		ch.Secrets, ch.OldUntil = []Secret{made}, c.Now.Add(keep)
		if c.Asymmetric {
			ch.Secrets = append(ch.Secrets, v.asymmetric())
		}
		ch.Extra = extra("old_until", ch.OldUntil.UTC().Format(event.TimeLayout))
		return ch, nil
	})
	return e, text, err
}

// Exported is what Export gave.
type Exported struct {
	Endpoints []Endpoint
	// SHA256 is of a line "id version" for each; hexadecimal.
	SHA256 string
}

// Export gives all endpoints that are not archived, oldest first.
func (s *Service) Export(ctx context.Context, call Call) (out Exported, err error) {
	out.Endpoints, err = s.o.Store.Export(ctx, call, func(list []Endpoint) json.RawMessage {
		sum := sha256.New()
		for i := range list {
			_, _ = fmt.Fprintf(sum, "%d %d\n", list[i].ID, list[i].Version) // a hash never fails
		}
		out.SHA256 = hex.EncodeToString(sum.Sum(nil))
		return extras(map[string]any{"format": "json", "count": len(list), "sha256": out.SHA256})
	})
	if err != nil {
		return Exported{}, err
	}
	s.o.Changed()
	return out, nil
}
