"""Task-agnostic distillation: a student learns a teacher's language from unlabelled text, before any task."""
