"""A detector in every form that makes it small: YOLOv8n and SSDLite."""
