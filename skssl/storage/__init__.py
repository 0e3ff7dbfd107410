"""Files that execute nothing: tensors and plain values, saved estimators, and exports."""
