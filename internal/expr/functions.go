package expr

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

const (
	mergeOverload  = "map_merge_map"
	digestOverload = "digest_dyn"
	// digestLength is that of the names in which a digest stands: enough to tell a few
	// dozen of them apart.
	digestLength = 8
	// digestCost is what one digest counts as; it may run through SizeLimit bytes.
	digestCost = 1000
)

// functions are what expressions that give values have besides those of conditions, where the
// language has no way to say it:
//
//	{'a': 'b'}.merge(parameters.tags)  one map of two; what the second says counts
//	digest([item.cpus, item.memory])   eight characters that change with the value, for
//	                                   the names of objects that must not change
func functions() []cel.EnvOption {
	anyMap := cel.MapType(cel.DynType, cel.DynType)
	return []cel.EnvOption{
		cel.Function("merge", cel.MemberOverload(mergeOverload, []*cel.Type{anyMap, anyMap}, anyMap, cel.BinaryBinding(merge))),
		cel.Function("digest", cel.Overload(digestOverload, []*cel.Type{cel.DynType}, cel.StringType, cel.UnaryBinding(digest))),
	}
}

// functionCosts counts what the functions do.
func functionCosts() cel.ProgramOption {
	return cel.CostTrackerOptions(
		interpreter.OverloadCostTracker(mergeOverload, func(args []ref.Val, _ ref.Val) *uint64 {
			return new(uint64(1) + lengthOf(args[0]) + lengthOf(args[1]))
		}),
		interpreter.OverloadCostTracker(digestOverload, func([]ref.Val, ref.Val) *uint64 { return new(uint64(digestCost)) }),
	)
}

func lengthOf(value ref.Val) uint64 {
	if sized, ok := value.(traits.Sizer); ok {
		if n, ok := sized.Size().(types.Int); ok && n > 0 {
			return uint64(n)
		}
	}
	return 0
}

func merge(first, second ref.Val) ref.Val {
	out := map[ref.Val]ref.Val{}
	for _, value := range []ref.Val{first, second} {
		m, ok := value.(traits.Mapper)
		if !ok {
			return types.MaybeNoSuchOverloadErr(value)
		}
		for it := m.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			out[key] = m.Get(key)
		}
	}
	return ordered{types.NewRefValMap(types.DefaultTypeAdapter, out)}
}

func digest(value ref.Val) ref.Val {
	left := SizeLimit
	plain, err := native(value, &left)
	if err != nil {
		return types.NewErrFromString(err.Error())
	}
	// Maps are encoded in the order of their keys.
	text, err := json.Marshal(plain)
	if err != nil {
		return types.NewErrFromString(err.Error())
	}
	sum := sha256.Sum256(text)
	return types.String(hex.EncodeToString(sum[:])[:digestLength])
}
