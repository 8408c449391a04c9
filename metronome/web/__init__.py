"""What all HTTP routes share: bodies, errors, negotiation and limits; and the beacon."""
