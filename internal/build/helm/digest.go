package helm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
)

// Digest identifies all that decides a rendering and is known before it: two requests
// with one digest ask for the same. The revision and whether it is an upgrade are not in
// it, since they change with each rendering, and neither is what lookup would find. It
// may be written down.
func (req Request) Digest() string {
	in := struct {
		Chart, Values, Capabilities, Name, Namespace string
		Renderers, Metadata                          string
		Strategy                                     helmv2.PostRenderStrategy
		Origin                                       string
		SkipSchema, DefinitionsFirst                 bool
		Reuse                                        int
	}{
		Chart: req.Chart.Digest(), Values: req.Values.Digest(),
		Name: req.Release.Name, Namespace: req.Release.Namespace,
		Renderers: PostRenderersDigest(req.PostRender.Renderers), Metadata: CommonMetadataDigest(req.PostRender.CommonMetadata),
		Strategy: req.PostRender.Strategy, Origin: req.PostRender.Origin.String(),
		SkipSchema: req.SkipSchema, DefinitionsFirst: req.DefinitionsFirst,
	}
	if req.Capabilities != nil {
		in.Capabilities = req.Capabilities.Digest()
	}
	if req.Reuse != nil {
		in.Reuse = req.Reuse.Version
	}
	// Encoding strings, numbers and booleans cannot fail.
	data, err := json.Marshal(in)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
