//! What the owner sees in a real Chromium.
