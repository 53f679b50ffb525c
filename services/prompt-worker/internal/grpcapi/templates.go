package grpcapi

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// CreateTemplate implements promptsv1.PromptServiceServer.
func (s *Prompts) CreateTemplate(ctx context.Context, req *promptsv1.CreateTemplateRequest) (*promptsv1.Template, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Template, error) {
		t, err := s.Service.CreateTemplate(ctx, call, req.GetName(), req.GetDescription(), fromVersion(req.GetMessages(), req.GetVariables()))
		return to(t, err, toTemplate)
	})
}

// GetTemplate implements promptsv1.PromptServiceServer.
func (s *Prompts) GetTemplate(ctx context.Context, req *promptsv1.GetTemplateRequest) (*promptsv1.Template, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Template, error) {
		t, err := s.Service.Template(ctx, call.OrgID, req.GetId())
		return to(t, err, toTemplate)
	})
}

// ListTemplates implements promptsv1.PromptServiceServer.
func (s *Prompts) ListTemplates(ctx context.Context, req *promptsv1.ListTemplatesRequest) (*promptsv1.ListTemplatesResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListTemplatesResponse, error) {
		list, total, next, err := s.Service.Templates(ctx, call.OrgID, query(req.Limit, req.GetCursor(), req.GetIncludeArchived()))
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListTemplatesResponse{Data: each(list, toTemplate), Total: total, NextCursor: next}, nil
	})
}

// ArchiveTemplate implements promptsv1.PromptServiceServer.
func (s *Prompts) ArchiveTemplate(ctx context.Context, req *promptsv1.ArchiveTemplateRequest) (*promptsv1.Template, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Template, error) {
		t, err := s.Service.ArchiveTemplate(ctx, call, req.GetId())
		return to(t, err, toTemplate)
	})
}

// CreateTemplateVersion implements promptsv1.PromptServiceServer.
func (s *Prompts) CreateTemplateVersion(ctx context.Context, req *promptsv1.CreateTemplateVersionRequest) (*promptsv1.TemplateVersion, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.TemplateVersion, error) {
		v, err := s.Service.AddVersion(ctx, call, req.GetTemplateId(), fromVersion(req.GetMessages(), req.GetVariables()), req.GetNote())
		return to(v, err, toVersion)
	})
}

// GetTemplateVersion implements promptsv1.PromptServiceServer.
func (s *Prompts) GetTemplateVersion(ctx context.Context, req *promptsv1.GetTemplateVersionRequest) (*promptsv1.TemplateVersion, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.TemplateVersion, error) {
		v, err := s.Service.Version(ctx, call.OrgID, req.GetTemplateId(), int(req.GetVersion()))
		return to(v, err, toVersion)
	})
}

// ListTemplateVersions implements promptsv1.PromptServiceServer.
func (s *Prompts) ListTemplateVersions(ctx context.Context, req *promptsv1.ListTemplateVersionsRequest) (*promptsv1.ListTemplateVersionsResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.ListTemplateVersionsResponse, error) {
		list, err := s.Service.Versions(ctx, call.OrgID, req.GetTemplateId())
		if err != nil {
			return nil, err
		}
		return &promptsv1.ListTemplateVersionsResponse{Data: each(list, toVersion), Total: int64(len(list))}, nil
	})
}

// DiffTemplateVersions implements promptsv1.PromptServiceServer.
func (s *Prompts) DiffTemplateVersions(ctx context.Context, req *promptsv1.DiffTemplateVersionsRequest) (*promptsv1.DiffTemplateVersionsResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.DiffTemplateVersionsResponse, error) {
		diff, err := s.Service.Diff(ctx, call.OrgID, req.GetTemplateId(), int(req.GetFrom()), int(req.GetTo()))
		if err != nil {
			return nil, err
		}
		return &promptsv1.DiffTemplateVersionsResponse{Diff: diff}, nil
	})
}

// SetTemplateLabel implements promptsv1.PromptServiceServer.
func (s *Prompts) SetTemplateLabel(ctx context.Context, req *promptsv1.SetTemplateLabelRequest) (*promptsv1.Template, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.Template, error) {
		t, err := s.Service.SetLabel(ctx, call, req.GetTemplateId(), prompting.Move{Label: req.GetLabel(), Version: int(req.GetVersion()),
			Protected: req.Protected, Force: req.GetForce()})
		return to(t, err, toTemplate)
	})
}

// RenderTemplate implements promptsv1.PromptServiceServer.
func (s *Prompts) RenderTemplate(ctx context.Context, req *promptsv1.RenderTemplateRequest) (*promptsv1.RenderTemplateResponse, error) {
	return as(ctx, func(call hooks.Call) (*promptsv1.RenderTemplateResponse, error) {
		list, err := s.Service.Render(ctx, call.OrgID, req.GetTemplateId(), int(req.GetVersion()), req.GetEventId())
		if err != nil {
			return nil, err
		}
		return &promptsv1.RenderTemplateResponse{Messages: each(list, toMessage)}, nil
	})
}

func fromVersion(messages []*promptsv1.Message, variables []*promptsv1.Variable) (v prompting.Version) {
	for _, m := range messages {
		v.Messages = append(v.Messages, prompting.Message{Role: m.GetRole(), Text: m.GetText()})
	}
	for _, known := range variables {
		v.Variables = append(v.Variables, prompting.Variable{Name: known.GetName(), Path: known.GetPath(), Value: known.GetValue(), Required: known.GetRequired()})
	}
	return v
}

func toMessage(m prompting.Message) *promptsv1.Message {
	return &promptsv1.Message{Role: m.Role, Text: m.Text}
}

func toVersion(v *hooks.Version) *promptsv1.TemplateVersion {
	variable := func(known prompting.Variable) *promptsv1.Variable {
		return &promptsv1.Variable{Name: known.Name, Path: known.Path, Value: known.Value, Required: known.Required}
	}
	return &promptsv1.TemplateVersion{TemplateId: v.TemplateID, Version: int32(v.Number), Messages: each(v.Messages, toMessage),
		Variables: each(v.Variables, variable), Note: v.Note, CreatedAt: timestamppb.New(v.CreatedAt)}
}

func toTemplate(t *hooks.Template) *promptsv1.Template {
	m := &promptsv1.Template{Id: t.ID, Name: t.Name, Description: t.Description, Latest: int32(t.Latest),
		CreatedAt: timestamppb.New(t.CreatedAt), UpdatedAt: timestamppb.New(t.UpdatedAt), ArchivedAt: stamp(t.ArchivedAt)}
	for _, name := range slices.Sorted(maps.Keys(t.Named)) {
		m.Labels = append(m.Labels, &promptsv1.TemplateLabel{Name: name, Version: int32(t.Named[name].Version), Protected: t.Named[name].Protected})
	}
	return m
}
