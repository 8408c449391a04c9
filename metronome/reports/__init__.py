"""What users ask: each report asks a store questions, and knows no store."""
