package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
)

// Recipe says how a folder of a source becomes objects. It holds the fields of
// a Kustomization that decide the output and no others, so that two units with
// one recipe and one source share one build. Fields mean what they mean in
// kustomize.toolkit.fluxcd.io/v1.
type Recipe struct {
	// Path is the folder, relative to the root of the source; "" is the root.
	Path            string                            `json:"path,omitempty"`
	TargetNamespace string                            `json:"targetNamespace,omitempty"`
	NamePrefix      string                            `json:"namePrefix,omitempty"`
	NameSuffix      string                            `json:"nameSuffix,omitempty"`
	CommonMetadata  *kustomizev1.CommonMetadata       `json:"commonMetadata,omitempty"`
	Patches         []kustomize.Patch                 `json:"patches,omitempty"`
	Images          []kustomize.Image                 `json:"images,omitempty"`
	Components      []string                          `json:"components,omitempty"`
	BuildMetadata   []kustomizev1.BuildMetadataOption `json:"buildMetadata,omitempty"`
	// IgnoreMissingComponents leaves out components that the source lacks.
	IgnoreMissingComponents bool `json:"ignoreMissingComponents,omitempty"`
	// Substitute holds the variables of the post-build substitution.
	Substitute map[string]string `json:"substitute,omitempty"`
	// Origins says of variables that do not come from the Kustomization itself
	// which object holds them, for messages.
	Origins map[string]string `json:"-"`
	// SubstituteStrategy is empty without a postBuild section. Variables are
	// replaced where there are any, and with the strategy Always also where not.
	SubstituteStrategy kustomizev1.SubstituteStrategy `json:"substituteStrategy,omitempty"`
	// StrictSubstitution fails on a variable that has no value and no default.
	StrictSubstitution bool `json:"strictSubstitution,omitempty"`
	// AllowRemoteBases lets kustomize fetch what its files name by URL. Such a
	// build is not hermetic: its Reads are never Unchanged.
	AllowRemoteBases bool `json:"allowRemoteBases,omitempty"`
	// Decryption undoes the encryption of files and manifests; nil where the unit
	// asks for none.
	Decryption Decrypter `json:"-"`
	// DecryptionKeys identifies the keys of Decryption, and tells nothing of them:
	// with other keys the recipe is another.
	DecryptionKeys string `json:"decryptionKeys,omitempty"`
	// LeaveEncrypted lets what is encrypted stand in the output. Without it, a
	// Secret that nobody decrypted is an error.
	LeaveEncrypted bool `json:"leaveEncrypted,omitempty"`
}

// RecipeOf returns the recipe of k. Variables that postBuild.substituteFrom
// names are added by the caller, with WithVariables.
func RecipeOf(k *kustomizev1.Kustomization) Recipe {
	s := &k.Spec
	r := Recipe{
		Path:                    s.Path,
		TargetNamespace:         s.TargetNamespace,
		NamePrefix:              s.NamePrefix,
		NameSuffix:              s.NameSuffix,
		CommonMetadata:          s.CommonMetadata,
		Patches:                 s.Patches,
		Images:                  s.Images,
		Components:              s.Components,
		BuildMetadata:           s.BuildMetadata,
		IgnoreMissingComponents: s.IgnoreMissingComponents,
	}
	if s.PostBuild != nil {
		r.Substitute = s.PostBuild.Substitute
		r.SubstituteStrategy = s.PostBuild.SubstituteStrategy
		if r.SubstituteStrategy == "" {
			r.SubstituteStrategy = kustomizev1.SubstituteStrategyWithVariables
		}
	}
	return r
}

// WithVariables returns the recipe with vars added below the variables that it
// has: where both name one, the recipe's own value stays. origins says of each
// which object holds it.
func (r Recipe) WithVariables(vars, origins map[string]string) Recipe {
	all := maps.Clone(vars)
	if all == nil {
		all = make(map[string]string, len(r.Substitute))
	}
	from := maps.Clone(origins)
	for name, value := range r.Substitute {
		all[name] = value
		delete(from, name)
	}
	r.Substitute, r.Origins = all, from
	return r
}

// Digest returns a hash of the recipe that stays the same between runs. It may
// be written down: variables cannot be read back from it, but short secrets in
// them could be guessed, so it does not belong in logs.
func (r Recipe) Digest() string {
	// Encoding cannot fail: the type holds nothing but strings and booleans,
	// and encoding/json sorts the keys of maps.
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
