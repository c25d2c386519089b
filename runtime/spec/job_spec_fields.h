// The fields of each spec, named once. Private to runtime/spec.
#pragma once

#include "runtime/spec/fields.h"

namespace lepton::spec {
// `kind` decides which of the kinds' own fields are visited; nullopt visits all of them (schema).
void Visit(FieldVisitor& v, JobSpec& s, std::optional<JobKind> kind);
void Visit(FieldVisitor& v, DeploymentSpec& s);
// Without `all`, the fields of the model's architecture only; the others are refused by their
// owner.
void Visit(FieldVisitor& v, ModelSpec& s, bool all);
// What a document's model starts from: the defaults of the architecture and style that it names.
ModelSpec ModelDefaultsFor(const nlohmann::json& model);
void Visit(FieldVisitor& v, DatasetSpec& s);
}  // namespace lepton::spec
