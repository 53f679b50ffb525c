package pg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sametick/sametick/pkg/errs"
)

// The codes that callers, or this package, tell apart (PostgreSQL documentation, appendix A).
const (
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	undefinedTable       = "42P01"
	invalidSchema        = "3F000"
	lockNotAvailable     = "55P03"
	duplicateSchema      = "42P06"
)

var (
	badText     = errs.New(errs.Invalid, "INVALID_TEXT", "a text holds characters that cannot be stored, such as NUL")
	badValue    = errs.New(errs.Invalid, "INVALID_VALUE", "a value cannot be stored")
	unavailable = errs.New(errs.Unavailable, "DATABASE_UNAVAILABLE", "the database is temporarily unavailable")
	internal    = errs.New(errs.Internal, "INTERNAL", "internal error")
)

// exact maps whole codes, class maps their first two characters; exact goes first.
var (
	exact = map[string]*errs.Error{
		uniqueViolation:      errs.New(errs.AlreadyExists, "ALREADY_EXISTS", "it already exists"),
		"23503":              errs.New(errs.FailedPrecondition, "REFERENCE_MISSING", "something this refers to does not exist, or is still referred to"),
		"23001":              errs.New(errs.FailedPrecondition, "CHANGE_REFUSED", "this cannot be changed"),
		serializationFailure: errs.New(errs.Aborted, "CONFLICT", "another change came first, try again"),
		deadlockDetected:     errs.New(errs.Aborted, "CONFLICT", "another change came first, try again"),
		lockNotAvailable:     errs.New(errs.Aborted, "LOCK_TIMEOUT", "another change takes too long, try again"),
		"57014":              errs.New(errs.DeadlineExceeded, "STATEMENT_TIMEOUT", "the database took too long"),
		"22P05":              badText, // untranslatable character, e.g. \u0000 in jsonb
		"22021":              badText, // character not in repertoire, e.g. a NUL byte
		"22003":              errs.New(errs.OutOfRange, "OUT_OF_RANGE", "a number is out of range"),
		"22008":              errs.New(errs.OutOfRange, "OUT_OF_RANGE", "a time is out of range"),
		"25006":              unavailable,                                                                                          // read-only: a failover is under way
		"STREV":              errs.New(errs.Aborted, "REVIEW_SET_CHANGED", "the hooks that review writes have changed, try again"), // sametick.begin_write
		"57P01":              unavailable,
		"57P02":              unavailable,
		"57P03":              unavailable,
		"57P05":              unavailable,
		"25P03":              unavailable,
	}
	class = map[string]*errs.Error{
		"08": unavailable,
		"22": badValue,
		"23": badValue, // not-null, check, exclusion
		"40": errs.New(errs.Aborted, "CONFLICT", "another change came first, try again"),
		"53": unavailable, // too many connections, out of memory, disk full
		"54": errs.New(errs.TooLarge, "TOO_LARGE", "a value is too large"),
		"58": unavailable, // I/O error
	}
)

// Translate gives err as *errs.Error with err as hidden cause: by SQLSTATE, ErrNoRows as NotFound,
// a broken connection as Unavailable, context errors by their kind, everything else Internal. An
// *errs.Error in the chain wins and comes back unchanged. Nil for nil.
func Translate(err error) error {
	var own *errs.Error
	var server *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errs.From(err)
	case errors.Is(err, pgx.ErrNoRows):
		return errs.New(errs.NotFound, "NOT_FOUND", "not found").WithCause(err)
	case errors.As(err, &server):
		return ofCode(server.Code).WithCause(err)
	case errors.As(err, &connect), errors.As(err, &network), pgconn.SafeToRetry(err),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unavailable.WithCause(err)
	default:
		return internal.WithCause(err)
	}
}

func ofCode(code string) *errs.Error {
	if e, ok := exact[code]; ok {
		return e
	}
	if len(code) == 5 {
		if e, ok := class[code[:2]]; ok {
			return e
		}
	}
	return internal
}

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// answered reports whether the server itself said no: then the outcome of a COMMIT is known, unless
// it said that it is going down.
func answered(err error) bool {
	c := code(err)
	return c != "" && !errors.Is(ofCode(c), unavailable)
}

// Retryable reports whether the transaction lost to another and may win when run again.
func Retryable(err error) bool {
	c := code(err)
	return c == serializationFailure || c == deadlockDetected
}

// IsUnique reports whether err is the violation of this unique constraint or index; of any, if
// constraint is empty.
func IsUnique(err error, constraint string) bool {
	return code(err) == uniqueViolation && (constraint == "" || Constraint(err) == constraint)
}

// Constraint is the name of the violated constraint, empty if err is no violation.
func Constraint(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.ConstraintName
	}
	return ""
}
