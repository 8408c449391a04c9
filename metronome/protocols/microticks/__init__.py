"""The protocol of microticks: sessions of visitors at exhibits, and what happens in them."""
