package identity

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Purpose is what a one-time token is for.
type Purpose string

// The purposes.
const (
	Invitation    Purpose = "invitation"
	PasswordReset Purpose = "password_reset"
)

// UserToken is a one-time token as it is stored.
type UserToken struct {
	Hash    []byte
	Purpose Purpose
	Expires time.Time
}

// Holder is the user of a one-time token or of a session.
type Holder struct {
	User
	Email         string
	Used, Expired bool
}

// NewPassword is a password to be stored.
type NewPassword struct {
	UserID int64
	Name   string
	Hash   string
	// Was is the hash of the password that it replaces; empty for whichever.
	Was string
	// Token is the hash of the one-time token that is used up for it; nil for none.
	Token []byte
	// Keep is the session that goes on; all others of the user end.
	Keep string
	// Start, if not nil, begins a session: an invitation was accepted.
	Start *NewSession
}

// Passwords changes passwords.
type Passwords interface {
	// FindHolder gives NotFound when the organisation has no such user.
	FindHolder(ctx context.Context, orgID, userID int64) (Holder, error)
	// FindToken gives NotFound when a one-time token is nobody's.
	FindToken(ctx context.Context, hash []byte, p Purpose) (Holder, error)
	// SetPassword stores a password, ends sessions and fires auth.password_changed, or with Start user.joined and
	// auth.login. ErrTokenUsed when the one-time token has been used meanwhile; Aborted when the password is no
	// longer the one that it replaces.
	SetPassword(ctx context.Context, call records.Call, n NewPassword) error
}

func newUserToken(p Purpose, ttl time.Duration) (secret string, t UserToken) {
	prefix := auth.InvitationPrefix
	if p == PasswordReset {
		prefix = auth.ResetPrefix
	}
	secret = auth.NewSecret(prefix)
	return secret, UserToken{Hash: auth.HashSecret(secret), Purpose: p, Expires: time.Now().Add(ttl).Truncate(time.Millisecond)}
}

// ChangePassword puts a new password in the place of the caller's and ends their other sessions. Whoever found
// an open session must not guess the password here, so tries are counted like logins.
func (s *Service) ChangePassword(ctx context.Context, by auth.Principal, call records.Call, current, next string) error {
	id, err := ownUser(by)
	if err != nil {
		return err
	}
	holder, err := s.store.Passwords.FindHolder(ctx, by.OrgID, id)
	if err != nil {
		return err
	}
	if current == "" || len(current) > MaxPassword {
		return refuseField("current_password", "OUT_OF_RANGE", fmt.Sprintf("1 to %d bytes", MaxPassword))
	}
	if err := checkNewPassword("new_password", next, holder.Email, holder.Name); err != nil {
		return err
	}
	if current == next {
		return refuseField("new_password", "UNCHANGED", "another password than the current one")
	}
	attempt := attemptAt("password", by.Subject, call.IP)
	if err := s.begin(ctx, attempt); err != nil {
		return err
	}
	ok, err := s.passwords.check(ctx, holder.PasswordHash, current)
	if err != nil {
		return err
	}
	if !ok {
		return errs.New(errs.PermissionDenied, "PASSWORD_WRONG", "the current password is wrong")
	}
	if err := s.store.Throttle.EndLogin(ctx, attempt); err != nil {
		return err
	}
	return s.setPassword(ctx, call, next, NewPassword{UserID: id, Name: holder.Name, Was: holder.PasswordHash, Keep: by.SessionID})
}

// ResetPassword sets a password by a one-time token and ends all of the user's sessions.
func (s *Service) ResetPassword(ctx context.Context, call records.Call, token, next string) error {
	holder, err := s.redeem(ctx, token, PasswordReset, next)
	if err != nil {
		return err
	}
	call.OrgID, call.ActorID = holder.OrgID, &holder.ID
	return s.setPassword(ctx, call, next, NewPassword{UserID: holder.ID, Name: holder.Name, Token: auth.HashSecret(token)})
}

// AcceptInvitation sets the password of an invited user and signs them in.
func (s *Service) AcceptInvitation(ctx context.Context, call records.Call, token, password string) (Tokens, error) {
	holder, err := s.redeem(ctx, token, Invitation, password)
	if err != nil {
		return Tokens{}, err
	}
	call.OrgID, call.ActorID = holder.OrgID, &holder.ID
	n, refresh := s.newSession()
	err = s.setPassword(ctx, call, password, NewPassword{UserID: holder.ID, Name: holder.Name, Token: auth.HashSecret(token), Start: &n})
	if err != nil {
		return Tokens{}, err
	}
	return s.tokens(userPrincipal(holder.User, n.ID), refresh, s.settings.AccessTTL)
}

func (s *Service) setPassword(ctx context.Context, call records.Call, password string, n NewPassword) (err error) {
	if n.Hash, err = s.passwords.hash(ctx, password); err != nil {
		return err
	}
	err = s.store.Passwords.SetPassword(ctx, call, n)
	s.ended()
	return err
}

// redeem finds whose a one-time token is and whether the password may be theirs. It uses nothing up.
func (s *Service) redeem(ctx context.Context, token string, p Purpose, password string) (Holder, error) {
	if token == "" {
		return Holder{}, refuseField("token", "REQUIRED", "the token of the invitation or of the password reset")
	}
	holder, err := s.store.Passwords.FindToken(ctx, auth.HashSecret(token), p)
	switch {
	case errs.KindOf(err) == errs.NotFound:
		return Holder{}, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the one-time token is not valid here")
	case err != nil:
		return Holder{}, err
	case holder.Used:
		return Holder{}, ErrTokenUsed()
	case holder.Expired:
		return Holder{}, errs.New(errs.Unauthenticated, "TOKEN_EXPIRED", "the one-time token has expired, ask for another")
	}
	return holder, checkNewPassword("password", password, holder.Email, holder.Name)
}

// ErrTokenUsed is the refusal to use a one-time token twice.
func ErrTokenUsed() error {
	return errs.New(errs.Unauthenticated, "TOKEN_USED", "the one-time token has been used, ask for another")
}

// commonPasswords are those that are tried first, one a line, in lower case.
//
//go:embed common_passwords.txt
var commonPasswords string

// checkNewPassword has the rules of NIST SP 800-63B, 3.1.1.2: a length, no composition, not a common password
// and none made of what everybody knows of the user.
func checkNewPassword(field, password, email, name string) error {
	local, _, _ := strings.Cut(email, "@")
	lower := strings.ToLower(password)
	switch {
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return refuseField(field, "INVALID_TEXT", "text in UTF-8 without the NUL character")
	case utf8.RuneCountInString(password) < MinPassword || len(password) > MaxPassword:
		return refuseField(field, "OUT_OF_RANGE", fmt.Sprintf("%d characters to %d bytes", MinPassword, MaxPassword))
	case strings.Contains("\n"+commonPasswords, "\n"+lower+"\n") && !strings.Contains(password, "\n"), strings.Count(lower, lower[:1]) == len(lower):
		return refuseField(field, "TOO_COMMON", "a password that is not among the commonest")
	case lower == strings.ToLower(email), lower == strings.ToLower(local), lower == strings.ToLower(name):
		return refuseField(field, "GUESSABLE", "a password that is not the user's name or address")
	}
	return nil
}
