package condition

import (
	"cmp"
	"fmt"
	"slices"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// ordered makes values of CEL whose maps are gone through in the order of their keys: Go's is another each time, and
// a transform must give the same for the same event.
type ordered struct{ types.Adapter }

// NativeToValue implements types.Adapter.
func (o ordered) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case map[string]any:
		return object{types.NewStringInterfaceMap(o, v)}
	case map[ref.Val]ref.Val:
		return object{types.NewRefValMap(o, v)}
	case []any:
		return types.NewDynamicList(o, v)
	case []ref.Val:
		return types.NewRefValList(o, v)
	}
	return o.Adapter.NativeToValue(v)
}

// object is a map with an order.
type object struct{ traits.Mapper }

// Iterator implements traits.Iterable.
func (m object) Iterator() traits.Iterator {
	keys := make([]ref.Val, 0, 8)
	for it := m.Mapper.Iterator(); it.HasNext() == types.True; {
		keys = append(keys, it.Next())
	}
	slices.SortFunc(keys, func(a, b ref.Val) int {
		x, ok1 := a.(types.String)
		y, ok2 := b.(types.String)
		if ok1 && ok2 {
			return cmp.Compare(x, y)
		}
		return cmp.Compare(fmt.Sprintf("%T %v", a, a.Value()), fmt.Sprintf("%T %v", b, b.Value()))
	})
	return types.NewRefValList(types.DefaultTypeAdapter, keys).Iterator()
}

// AggregateSize implements types.AggregateSizeVisitor, which the embedded interface would hide.
func (m object) AggregateSize(s types.AggregateSizer) uint32 {
	if v, ok := m.Mapper.(types.AggregateSizeVisitor); ok {
		return v.AggregateSize(s)
	}
	return 1
}

// mapLiteral is a map written in the text, which the library makes without asking the adapter.
type mapLiteral struct {
	interpreter.InterpretableConstructor
}

// Exec implements interpreter.InterpretableV2.
func (l mapLiteral) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	v := l.InterpretableConstructor.Exec(frame)
	if m, ok := v.(traits.Mapper); ok {
		return object{m}
	}
	return v
}

// Eval implements interpreter.Interpretable.
func (l mapLiteral) Eval(vars interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(vars, l.Exec)
}

func orderLiterals(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	switch i := i.(type) {
	case interpreter.InterpretableConst: // folded before
		if m, ok := i.Value().(traits.Mapper); ok {
			return interpreter.NewConstValue(i.ID(), object{m}), nil
		}
	case interpreter.InterpretableConstructor:
		if i.Type() == types.MapType {
			return mapLiteral{i}, nil
		}
	}
	return i, nil
}
