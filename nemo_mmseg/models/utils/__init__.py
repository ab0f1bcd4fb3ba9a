"""What several parts of networks share."""
