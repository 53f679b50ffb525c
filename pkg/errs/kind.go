package errs

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// Kind is what went wrong, as far as a caller needs it to decide what to do next.
type Kind uint8

// The kinds, named after google.rpc.Code; TooLarge is the one HTTP knows and gRPC does not.
const (
	OK Kind = iota
	Invalid
	NotFound
	AlreadyExists
	// Aborted: a conflict with another writer; reading again and retrying may help.
	Aborted
	// FailedPrecondition: the state must change before a retry can help.
	FailedPrecondition
	Unauthenticated
	PermissionDenied
	// ResourceExhausted: a rate or a quota; see RetryAfter.
	ResourceExhausted
	OutOfRange
	// TooLarge: the request has too many bytes.
	TooLarge
	Unimplemented
	// Unavailable: the same call may succeed soon.
	Unavailable
	DeadlineExceeded
	Canceled
	// Internal: our fault; the cause is in the log, not in the answer.
	Internal
)

// kindInfo is what a kind is called elsewhere.
type kindInfo struct {
	name   string
	code   codes.Code
	status int
	public string
}

// kinds is indexed by Kind. HTTP statuses follow google.rpc.Code's own comments.
var kinds = [...]kindInfo{
	OK:                 {"OK", codes.OK, http.StatusOK, ""},
	Invalid:            {"INVALID_ARGUMENT", codes.InvalidArgument, http.StatusBadRequest, "invalid request"},
	NotFound:           {"NOT_FOUND", codes.NotFound, http.StatusNotFound, "not found"},
	AlreadyExists:      {"ALREADY_EXISTS", codes.AlreadyExists, http.StatusConflict, "already exists"},
	Aborted:            {"ABORTED", codes.Aborted, http.StatusConflict, "conflict with another change, try again"},
	FailedPrecondition: {"FAILED_PRECONDITION", codes.FailedPrecondition, http.StatusBadRequest, "precondition failed"},
	Unauthenticated:    {"UNAUTHENTICATED", codes.Unauthenticated, http.StatusUnauthorized, "not authenticated"},
	PermissionDenied:   {"PERMISSION_DENIED", codes.PermissionDenied, http.StatusForbidden, "not allowed"},
	ResourceExhausted:  {"RESOURCE_EXHAUSTED", codes.ResourceExhausted, http.StatusTooManyRequests, "too many requests"},
	OutOfRange:         {"OUT_OF_RANGE", codes.OutOfRange, http.StatusBadRequest, "out of range"},
	TooLarge:           {"TOO_LARGE", codes.ResourceExhausted, http.StatusRequestEntityTooLarge, "request too large"},
	Unimplemented:      {"UNIMPLEMENTED", codes.Unimplemented, http.StatusNotImplemented, "not implemented"},
	Unavailable:        {"UNAVAILABLE", codes.Unavailable, http.StatusServiceUnavailable, "temporarily unavailable"},
	DeadlineExceeded:   {"DEADLINE_EXCEEDED", codes.DeadlineExceeded, http.StatusGatewayTimeout, "deadline exceeded"},
	Canceled:           {"CANCELED", codes.Canceled, 499, "canceled"},
	Internal:           {"INTERNAL", codes.Internal, http.StatusInternalServerError, "internal error"},
}

// valid maps a value outside the list to Internal, so that a bad cast cannot panic an error path.
func (k Kind) valid() Kind {
	if int(k) >= len(kinds) {
		return Internal
	}
	return k
}

// String is the kind in UPPER_SNAKE; it serves as a reason where none is more exact.
func (k Kind) String() string { return kinds[k.valid()].name }

// Code is the gRPC code.
func (k Kind) Code() codes.Code { return kinds[k.valid()].code }

// HTTPStatus is the HTTP status, by the comments of google/rpc/code.proto; 499 for Canceled.
func HTTPStatus(k Kind) int { return kinds[k.valid()].status }

// ClientFault reports whether the caller must change something; such errors are not logged as ours.
func (k Kind) ClientFault() bool {
	switch k {
	case OK, Unavailable, DeadlineExceeded, Internal, Unimplemented:
		return false
	default:
		return true
	}
}

func kindOfCode(c codes.Code) Kind {
	for k, v := range kinds {
		if v.code == c {
			return Kind(k)
		}
	}
	return Internal // Unknown and DataLoss
}
