package identity

import (
	"context"
	"fmt"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Founding is a new organisation with its first user, an administrator, and an API key.
type Founding struct {
	Org, Email, PasswordHash, KeySecret string
}

// Founder stores one. It makes nothing and gives the ids that are there when somebody has the address.
type Founder interface {
	Bootstrap(ctx context.Context, f Founding) (org, user int64, made bool, err error)
}

// Founded is what Found made or found.
type Founded struct {
	OrgID  int64 `json:"org_id"`
	UserID int64 `json:"user_id"`
	// APIKey is the key's secret; empty when the organisation was there already.
	APIKey string `json:"api_key,omitempty"`
}

// Found makes an organisation, a user who signs in with email and password, and an API key; nothing
// when the address is known.
func Found(ctx context.Context, f Founder, org, email, password string) (Founded, error) {
	err := errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	if records.CheckName(org) != nil {
		err = err.WithField("org", "OUT_OF_RANGE", fmt.Sprintf("1 to %d characters", records.MaxName))
	}
	if !ValidEmail(email) {
		err = err.WithField("email", "INVALID_EMAIL", "an email address")
	}
	if bad := checkNewPassword("password", password, email, email); bad != nil {
		err.Fields = append(err.Fields, errs.From(bad).Fields...)
	}
	if len(err.Fields) > 0 {
		return Founded{}, err
	}
	secret, _ := NewKeySecret()
	orgID, userID, made, failed := f.Bootstrap(ctx, Founding{Org: org, Email: email, PasswordHash: HashPassword(password), KeySecret: secret})
	if failed != nil {
		return Founded{}, failed
	}
	founded := Founded{OrgID: orgID, UserID: userID}
	if made {
		founded.APIKey = secret
	}
	return founded, nil
}
