"""The Matomo Tracking API, and as much of Matomo's own API as its log importer asks for."""
