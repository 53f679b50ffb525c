package errs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the ErrorInfo domain of every error this suite raises.
const Domain = "sametick.dev"

// Details travel in a trailer, which proxies bound to a few KiB: what a stranger sent and we quote
// must not make the answer undeliverable.
const (
	maxText   = 1024
	maxFields = 32
	// kindKey carries the kinds that share a gRPC code with another.
	kindKey = "sametick.kind"
)

// GRPCStatus makes the status: code, message, google.rpc.ErrorInfo, BadRequest when there are
// fields, RetryInfo when there is a wait. The cause is left out. Texts are cut to 1 KiB, fields to 32.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Kind.Code(), clean(e.Message))
	if st.Code() == codes.OK {
		return st
	}
	info := &errdetails.ErrorInfo{Reason: clean(e.Reason), Domain: Domain, Metadata: map[string]string{}}
	for k, v := range e.Meta {
		info.Metadata[clean(k)] = clean(v)
	}
	if kindOfCode(e.Kind.Code()) != e.Kind {
		info.Metadata[kindKey] = e.Kind.String()
	}
	details := []protoadapt.MessageV1{info}
	if len(e.Fields) > 0 {
		details = append(details, badRequest(e.Fields))
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	full, err := st.WithDetails(details...)
	if err != nil { // cannot be: every string is valid UTF-8 and the code is not OK
		return st
	}
	return full
}

func badRequest(fields []Field) *errdetails.BadRequest {
	b := &errdetails.BadRequest{}
	for _, f := range fields[:min(len(fields), maxFields)] {
		b.FieldViolations = append(b.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: clean(f.Field), Reason: clean(f.Reason), Description: clean(f.Description),
		})
	}
	return b
}

// clean makes s valid UTF-8 (protobuf refuses anything else) of bounded length.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// From gives the *Error in err: itself if err is or wraps one, the translation of a gRPC status or
// of a context error, else Internal with the text "internal error" and err as hidden cause. Nil for nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	// Not status.FromError: on a wrapped status it puts the wrapping text, which is ours, into the message.
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) && s.GRPCStatus().Code() != codes.OK {
		return fromStatus(s.GRPCStatus()).WithCause(err)
	}
	kind := Internal
	switch {
	case errors.Is(err, context.Canceled):
		kind = Canceled
	case errors.Is(err, context.DeadlineExceeded):
		kind = DeadlineExceeded
	}
	return New(kind, kind.String(), kinds[kind].public).WithCause(err)
}

func fromStatus(st *status.Status) *Error {
	kind := kindOfCode(st.Code())
	e := New(kind, kind.String(), kinds[kind].public)
	// A foreign status that blames the caller speaks to the caller; any other may name addresses.
	if kind.ClientFault() && kind != ResourceExhausted {
		e.Message = st.Message()
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				e.takeInfo(d, st.Message())
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, Field{v.GetField(), v.GetReason(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

func (e *Error) takeInfo(info *errdetails.ErrorInfo, message string) {
	e.Reason, e.Message = info.GetReason(), message
	meta := maps.Clone(info.GetMetadata())
	if name, ok := meta[kindKey]; ok {
		delete(meta, kindKey)
		same := func(k kindInfo) bool { return k.name == name && k.code == e.Kind.Code() }
		if k := slices.IndexFunc(kinds[:], same); k >= 0 {
			e.Kind = Kind(k)
		}
	}
	if len(meta) > 0 {
		e.Meta = meta
	}
}
